package state

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// backupOf returns a sealed backup of the machine's state.
func backupOf(t testing.TB, m *machine, h BackupHead) []byte {
	t.Helper()
	var sealed bytes.Buffer
	if err := WriteBackup(&sealed, m.s, h); err != nil {
		t.Fatal(err)
	}
	return sealed.Bytes()
}

// A backup has what outlasts the nodes, and nothing of the nodes.
func TestBackup(t *testing.T) {
	m := full(t, 1000)
	want := BackupHead{Time: 7, Node: "name", Current: true}
	sealed := backupOf(t, m, want)
	for _, plain := range []string{"x/y/zx/y/z", "addr:1", "cluster", "name"} {
		if bytes.Contains(sealed, []byte(plain)) {
			t.Errorf("the backup has %q in it", plain)
		}
	}
	s, head, err := ReadBackup(bytes.NewReader(sealed), []seal.Secret{{9}, m.secret})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, head); diff != "" {
		t.Error(diff)
	}
	if s.Index != m.s.Index || s.Cluster != "cluster" || s.Incarnation != 3 || s.Term() != m.s.Term() || s.Past.Sum != m.s.Past.Sum {
		t.Errorf("the head is that of another state: %+v", s)
	}
	if v, ok := s.Records.Get(keyspace.Tree("x/y/z")); !ok || len(v.Value) != 1000 || s.Records.Len() != m.s.Records.Len() {
		t.Error("the records differ")
	}
	if diff := cmp.Diff(m.s.Tickets, s.Tickets); diff != "" {
		t.Error(diff)
	}
	if n := s.Members.Len() + s.Sessions.Len() + s.Roles.Len() + s.processes.Len() + len(s.Servers) + len(s.Voters); n != 0 {
		t.Errorf("%d things of nodes are in the backup", n)
	}
	if diff := cmp.Diff(s.Used, m.s.lasting().Used); diff != "" {
		t.Errorf("the budgets of what is left (-read back +without the roles):\n%s", diff)
	}
}

// Whichever bit is changed, and wherever the end is cut off, a backup is refused.
func TestBackupDamage(t *testing.T) {
	m := full(t, 300)
	sealed := backupOf(t, m, BackupHead{Node: "n"})
	read := func(b []byte) error {
		_, _, err := ReadBackup(bytes.NewReader(b), []seal.Secret{m.secret})
		return err
	}
	if err := read(sealed); err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 97
	}
	for bit := 0; bit < 8*len(sealed); bit += step {
		damaged := bytes.Clone(sealed)
		damaged[bit/8] ^= 1 << (bit % 8)
		if err := read(damaged); !errors.Is(err, errs.ErrSealed) {
			t.Fatalf("bit %d of %d is changed, and the error is %v", bit, 8*len(sealed), err)
		}
	}
	for cut := 0; cut < len(sealed); cut += step {
		if err := read(sealed[:cut]); !errors.Is(err, errs.ErrSealed) {
			t.Fatalf("the backup ends after %d of %d bytes, and the error is %v", cut, len(sealed), err)
		}
	}
	if err := read(append(bytes.Clone(sealed), 0)); !errors.Is(err, errs.ErrSealed) {
		t.Errorf("a byte is added, and the error is %v", err)
	}
}

// The error names the secret that is needed. A snapshot is no backup, and a backup no snapshot.
func TestBackupsThatAreRefused(t *testing.T) {
	m := full(t, 300)
	sealed := backupOf(t, m, BackupHead{})
	_, _, err := ReadBackup(bytes.NewReader(sealed), []seal.Secret{{9}})
	if !errors.Is(err, errs.ErrSealed) || !strings.Contains(err.Error(), "sealed for secret "+m.secret.ID().String()) {
		t.Errorf("with another secret: %v", err)
	}
	if _, err := ReadSnapshot(bytes.NewReader(sealed), []seal.Secret{m.secret}); err == nil || !strings.Contains(err.Error(), "it is a backup, and no snapshot") {
		t.Errorf("a backup as a snapshot: %v", err)
	}
	var snapshot bytes.Buffer
	if err := WriteSnapshot(&snapshot, m.s); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadBackup(&snapshot, []seal.Secret{m.secret}); err == nil || !strings.Contains(err.Error(), "it is a snapshot of one node, and no backup") {
		t.Errorf("a snapshot as a backup: %v", err)
	}
	if err := WriteBackup(io.Discard, New(), BackupHead{}); err == nil || !strings.Contains(err.Error(), "there is no keyring yet") {
		t.Errorf("a state without keys: %v", err)
	}
}

// A backup says of itself only once what it is, right at its beginning.
func TestBackupHeadHasOnePlace(t *testing.T) {
	m := newMachine(t)
	var head, own, end codec.Encoder
	m.s.encodeHead(&head)
	BackupHead{Node: "n"}.encode(&own)
	frame := func(tag byte, body codec.Encoder) []byte {
		e := codec.Encoder{B: []byte{tag}}
		e.Bytes(body.B)
		return e.B
	}
	h, b, e := frame(frameHead, head), frame(frameBackup, own), frame(frameEnd, end)
	tickets := codec.Encoder{}
	(&TicketKeys{Next: make([]byte, TicketKeySize)}).Encode(&tickets)
	for name, test := range map[string]struct {
		frames [][]byte
		want   error
	}{
		"as it is written": {[][]byte{h, b, e}, nil},
		"twice":            {[][]byte{h, b, b, e}, codec.ErrMalformed},
		"first":            {[][]byte{b, h, e}, codec.ErrMalformed},
		"later":            {[][]byte{h, frame(frameTickets, tickets), b, e}, codec.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			var sealed bytes.Buffer
			w, err := seal.NewWriter(&sealed, m.s.Keys, m.s.Wrapped)
			if err != nil {
				t.Fatal(err)
			}
			w.Write(bytes.Join(test.frames, nil))
			w.Close()
			if _, _, err := ReadBackup(&sealed, []seal.Secret{m.secret}); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

// A restored cluster has one node, and its indexes are behind all that the former cluster can have
// used.
func TestRestored(t *testing.T) {
	m := full(t, 300)
	wrapped, err := m.s.Keys.Wrap(seal.Secret{5})
	if err != nil {
		t.Fatal(err)
	}
	if s := m.s.Restored("new", 9, wrapped, 2*indexStep); s.Index != 2*indexStep {
		t.Errorf("index %d is below the floor", s.Index)
	}
	s := m.s.Restored("new", 9, wrapped, 7)
	if s.Index != m.s.Index+indexStep || s.Elected != s.Index || s.Incarnation != 9 || s.Cluster != "cluster" {
		t.Errorf("index %d, elected %d, incarnation %d, cluster %q", s.Index, s.Elected, s.Incarnation, s.Cluster)
	}
	if diff := cmp.Diff([][]string{{"new"}, {"new"}}, [][]string{s.Servers, s.Voters}); diff != "" {
		t.Error(diff)
	}
	if s.Members.Len()+s.Sessions.Len()+s.Roles.Len() != 0 {
		t.Error("something of the former nodes is left")
	}
	var b bytes.Buffer
	if err := WriteSnapshot(&b, s); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSnapshot(&b, []seal.Secret{{5}}); err != nil {
		t.Errorf("with the new secret: %v", err)
	}
}

func FuzzBackupHead(f *testing.F) {
	var e codec.Encoder
	BackupHead{Time: -1, Node: "name", Current: true}.encode(&e)
	f.Add(e.B)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := codec.Decoder{B: b}
		h := decodeBackupHead(&d)
		if d.End() != nil {
			return
		}
		var again codec.Encoder
		h.encode(&again)
		d = codec.Decoder{B: again.B}
		if got := decodeBackupHead(&d); got != h || d.End() != nil {
			t.Fatalf("%+v comes back as %+v", h, got)
		}
	})
}
