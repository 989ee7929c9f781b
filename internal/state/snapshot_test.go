package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// full returns a machine whose state has something of every kind, and a value of about that size.
func full(t testing.TB, size int) *machine {
	m := newMachine(t)
	m.install(m.s.Configure(1, []string{"a", "b"}, []string{"b"}, nil))
	m.s.Incarnation = 3
	for _, c := range []Command{
		{Node: "a", Time: 5, Change: OpenSession{Incarnation: "a1", Addr: "addr:1"}},
		{Node: "b", Change: OpenSession{Incarnation: "b1"}},
		{Change: SetMember{Member{ID: "a", Name: "name", Addr: "addr:1"}}},
		{Node: "a", Session: 2, Seq: 1, Change: ClaimRole{Role: "role/r", Wait: true, MaxState: 1 << 20, Public: &PublicRole{HoldDown: 7, ReleasedOnDeath: true}}},
		{Node: "b", Session: 3, Seq: 1, Change: ClaimRole{Role: "role/r", Wait: true, MaxState: 1 << 20, Group: "g", Priority: -1}},
		{Node: "a", Session: 2, Seq: 2, Acked: 1, Change: StoreRecord{Key: "x/y/z", Value: bytes.Repeat([]byte("x/y/z"), size/5), MaxState: 1 << 20}},
		{Change: RotateTickets{Key: make([]byte, TicketKeySize)}},
		{Change: MoveRole{Role: "role/r"}},
		{Requires: 2, Node: "a", Session: 2, Seq: 3, Acked: 1, Change: WriteItems{Bucket: "b", MaxRecords: 1 << 20, Ops: []ItemOp{
			{Key: "gone", Put: &ItemPut{Value: []byte("1")}}, {Key: "kept", Put: &ItemPut{Value: []byte("2"), TTL: time.Minute}}, {Key: "own", Put: &ItemPut{Session: true}},
		}}},
		{Requires: 2, Node: "a", Session: 2, Seq: 4, Acked: 1, Change: WriteItems{Bucket: "b", Ops: []ItemOp{{Key: "gone"}, {Key: "kept", Refresh: true}}}},
		{Requires: 2, Node: "a", Session: 2, Seq: 5, Acked: 1, Change: WriteItems{Bucket: "b", If: []ItemIf{{"kept", IsAbsent, 0}}}},
		{Change: Suspect{Node: "a", Number: 2, Stored: 4}},
		{Change: EndByDeathNotice{Node: "b", Number: 3}},
		{Requires: 2, Change: EvictMember{Node: "c"}},
		{Requires: 2, Change: EvictMember{Node: "a"}},
	} {
		m.apply(c)
	}
	return m
}

// All of a state is in its snapshot, sealed. The machine compares what is read back.
func TestSnapshot(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	m := full(t, 150_000)
	var sealed bytes.Buffer
	if err := WriteSnapshot(&sealed, m.s); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSnapshot(bytes.NewReader(sealed.Bytes()), []seal.Secret{m.secret})
	if err != nil || got.Incarnation != 3 || got.Version != 1 || got.Cluster != "cluster" || got.Index != m.s.Index {
		t.Fatalf("the head is read as %+v, %v", got, err)
	}
	for _, plain := range []string{"x/y/zx/y/z", "name\x06addr:1", "cluster"} {
		if bytes.Contains(sealed.Bytes(), []byte(plain)) {
			t.Errorf("the snapshot has %q in it", plain)
		}
	}
	if _, err := ReadSnapshot(bytes.NewReader(sealed.Bytes()), []seal.Secret{{2}}); !errors.Is(err, errs.ErrSealed) {
		t.Errorf("with another secret: %v, want errs.ErrSealed", err)
	}
	for cut := range 200 {
		if _, err := ReadSnapshot(bytes.NewReader(sealed.Bytes()[:sealed.Len()*cut/200]), []seal.Secret{m.secret}); !errors.Is(err, errs.ErrSealed) {
			t.Fatalf("a snapshot cut at %d/200: %v, want errs.ErrSealed", cut, err)
		}
	}
	if _, err := ReadSnapshot(strings.NewReader("not a snapshot"), []seal.Secret{m.secret}); !errors.Is(err, errs.ErrSealed) {
		t.Errorf("of other bytes the error is %v, want errs.ErrSealed", err)
	}
}

// What is sealed rightly may still have a format that this version does not know, or be nonsense.
func TestSnapshotsThatAreRefused(t *testing.T) {
	if err := WriteSnapshot(io.Discard, New()); err == nil || !strings.Contains(err.Error(), "there is no keyring yet") {
		t.Errorf("a state without keys is written: %v", err)
	}
	frame := func(tag byte, fill func(e *codec.Encoder)) []byte {
		var body codec.Encoder
		fill(&body)
		e := codec.Encoder{B: []byte{tag}}
		e.Bytes(body.B)
		return e.B
	}
	head := func(format, version uint64) []byte {
		return frame(frameHead, func(e *codec.Encoder) {
			s := New()
			s.Version, s.Index, s.Cluster = version, 7, "cluster"
			var all codec.Encoder
			s.encodeHead(&all)
			e.Uint(format)
			e.B = append(e.B, all.B[1:]...) // the format takes one byte
		})
	}
	whole, end := head(SnapshotVersion, Version), frame(frameEnd, func(*codec.Encoder) {})
	empty := frame(frameRole, func(e *codec.Encoder) {
		e.String("r")
		e.Uint(0)
	})
	huge := codec.Encoder{B: []byte{frameRecord}}
	huge.Uint(1 << 62)
	malformed := codec.ErrMalformed.Error()
	m := newMachine(t)
	for _, test := range []struct {
		name   string
		frames [][]byte
		want   string
	}{
		{"whole", [][]byte{whole, end}, ""},
		{"of a later format", [][]byte{head(SnapshotVersion+1, Version), end}, "upgrade"},
		{"of an earlier format", [][]byte{head(SnapshotVersion-1, Version), end}, "cannot be read any more"},
		{"of a later cluster version", [][]byte{head(SnapshotVersion, Version+1), end}, fmt.Sprintf("requires cluster version %d, and this version of flotilla supports %d; upgrade this node", Version+1, Version)},
		{"with another part", [][]byte{whole, frame(99, func(*codec.Encoder) {}), end}, "part 99 is not known"},
		{"with a role that has no holder", [][]byte{whole, empty, end}, malformed},
		{"with more after its end", [][]byte{whole, end, {0}}, malformed},
		{"without an end", [][]byte{whole}, malformed},
		{"without a head", [][]byte{end}, malformed},
		{"with two heads", [][]byte{whole, whole, end}, malformed},
		{"with a part larger than any", [][]byte{whole, huge.B}, malformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ReadSnapshot(sealFrames(t, m, bytes.Join(test.frames, nil)), []seal.Secret{m.secret})
			switch {
			case test.want == "" && (err != nil || got.Index != 7 || got.Cluster != "cluster"):
				t.Errorf("it is read as %+v, %v", got, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("the error is %v, want %q in it", err, test.want)
			}
		})
	}
}

// sealFrames returns the sealed stream of what a snapshot has in it.
func sealFrames(t testing.TB, m *machine, plain []byte) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w, err := seal.NewWriter(&b, m.keys, m.s.Wrapped)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain) // its error is that of Close
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// frames returns what a snapshot has in it.
func frames(t testing.TB, m *machine) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteSnapshot(&b, m.s); err != nil {
		t.Fatal(err)
	}
	r, err := seal.NewReader(&b, m.secret)
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Nonsense that is sealed rightly must not panic, and what is read is written the same way.
func FuzzReadSnapshot(f *testing.F) {
	f.Add([]byte{frameHead, 3, 1, 0, 0, frameEnd, 0})
	f.Add(frames(f, full(f, 10)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMachine(t)
		s, err := ReadSnapshot(sealFrames(t, m, b), []seal.Secret{m.secret})
		if err != nil {
			return
		}
		m.install(s)
	})
}
