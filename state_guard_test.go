package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// The tests in this file are of single guards of the state machine. Without its guard each of them fails: see TESTING.md.

// A suspicion is of one session, and is cleared by who means that suspicion.
func TestSuspicion(t *testing.T) {
	m := newMachine(t)
	a := m.open("a")
	want := func(why string, suspect uint64) {
		t.Helper()
		if got := m.s.Session("a").Suspect; got != suspect {
			t.Errorf("%s: suspicion %d, want %d", why, got, suspect)
		}
	}
	m.do(state.Command{Op: state.OpSuspect, Target: "a", Number: a + 1})
	want("another session was suspected", 0)
	m.do(state.Command{Op: state.OpSuspect, Target: "a", Number: a})
	first := m.s.Index
	want("it was suspected", first)
	m.do(state.Command{Op: state.OpSuspect, Target: "a", Number: a})
	want("it was suspected again", first)
	m.do(state.Command{Op: state.OpClear, Target: "a", Number: a + 1, Cond: first})
	want("another session was cleared", first)
	m.do(state.Command{Op: state.OpClear, Target: "a", Number: a, Cond: first})
	want("it was cleared", 0)
	m.do(state.Command{Op: state.OpSuspect, Target: "a", Number: a})
	second := m.s.Index
	m.do(state.Command{Op: state.OpClear, Target: "a", Number: a, Cond: first})
	want("an earlier suspicion was cleared", second)
}

// A session ends by the reports that count: those about the suspicion that it is under, by those who vote now.
func TestVerdictCountsItsOwn(t *testing.T) {
	m := newMachine(t)
	m.s = m.s.Configure(1, []string{"a", "b", "c"}, []string{"a", "b", "c"}, nil)
	a := m.open("a")
	m.do(state.Command{Op: state.OpSuspect, Target: "a", Number: a})
	first := m.s.Index
	m.do(state.Command{Op: state.OpClear, Target: "a", Number: a, Cond: first})
	m.do(state.Command{Op: state.OpSuspect, Target: "a", Number: a})
	second, before := m.s.Index, m.s.Elected
	m.s = m.s.Configure(m.s.Index+1, []string{"a", "b", "c"}, []string{"a", "b"}, nil)
	for why, c := range map[string]state.Command{
		"an earlier suspicion":  {Cond: first, Voters: m.s.Elected},
		"earlier voters":        {Cond: second, Voters: before},
		"both":                  {Cond: first, Voters: before},
		"another session of it": {Cond: second, Voters: m.s.Elected, Number: a + 1},
	} {
		c.Op, c.Target = state.OpEnd, "a"
		if c.Number == 0 {
			c.Number = a
		}
		if m.do(c); m.s.Number("a") != a {
			t.Fatalf("a verdict of %s ends the session", why)
		}
	}
	if m.do(state.Command{Op: state.OpEnd, Target: "a", Number: a, Cond: second, Voters: m.s.Elected}); m.s.Session("a") != nil {
		t.Error("the verdict that counts does not end the session")
	}
}

// A command of a session that has ended does nothing, also when its node has another session.
func TestCommandOfTheSessionBefore(t *testing.T) {
	m := newMachine(t)
	old := m.open("a")
	m.do(state.Command{Op: state.OpEnd, Target: "a", Number: old})
	ses := m.open("a")
	store := state.Command{Op: state.OpStore, Node: "a", Session: old, Seq: 1, Key: "k", Number: 1 << 20}
	if got := m.do(store); got.Code != state.CodeEnded || m.s.Records.Len() != 0 {
		t.Errorf("a command of the session before is answered %d, and there are %d records", got.Code, m.s.Records.Len())
	}
	store.Session = ses
	if got := m.do(store); got.Code != state.CodeOK || m.s.Records.Len() != 1 {
		t.Errorf("a command of the session is answered %d, and there are %d records", got.Code, m.s.Records.Len())
	}
}

// Who waits holds nothing, and nobody is told that he does.
func TestSecondClaimWaits(t *testing.T) {
	m := newMachine(t)
	claims := make(map[string]state.Command)
	for _, node := range []string{"a", "b"} {
		claims[node] = state.Command{Op: state.OpClaim, Node: node, Session: m.open(node), Seq: 1, Key: "r", Flag: true, Number: 1 << 20}
		m.do(claims[node])
	}
	queue := m.s.Claims("r")
	if len(queue) != 2 || queue[0].Node != "a" || queue[0].Index == 0 || queue[1].Index != 0 {
		t.Errorf("of two claims the queue is %+v", queue)
	}
	if !slices.Contains(m.fx.Claims, queue[0].Ref) || slices.Contains(m.fx.Claims, queue[1].Ref) {
		t.Errorf("told are %v", m.fx.Claims)
	}
}

// Two leaders may each have made keys for a new cluster: those of the first entry are the cluster's.
func TestFirstKeyringCounts(t *testing.T) {
	secret := seal.Secret{1}
	var entries []*raft.Log
	var rings []*seal.Keyring
	for i, name := range []string{"one", "two"} {
		keys := seal.NewKeyring()
		wrapped, err := keys.Wrap(secret)
		if err != nil {
			t.Fatal(err)
		}
		rings = append(rings, keys)
		entries = append(entries, &raft.Log{Index: uint64(i + 1), Data: state.KeyringEntry(name, wrapped)})
	}
	entries = append(entries, &raft.Log{Index: 3, Data: state.SealCommand(rings[0], &state.Command{Op: state.OpOpen, Node: "a", Key: "boot"})})
	f := testFSM(state.NewStore(), []seal.Secret{secret}, testlog.None(), func(err error) { t.Error(err) }, func(*state.Effects) {})
	done := make(chan struct{})
	go func() { // which ends if an entry cannot be opened
		defer close(done)
		f.ApplyBatch(entries)
	}()
	<-done
	if s := f.State(); s.Cluster != "one" || s.Index != 3 || s.Session("a") == nil {
		t.Errorf("after the keys of two clusters it is %q, at index %d", s.Cluster, s.Index)
	}
}

// What a snapshot has in it is sealed rightly and may still be nothing that this version understands, or nonsense.
func TestSnapshotsThatAreRefused(t *testing.T) {
	secret := seal.Secret{1}
	s := state.New()
	if err := state.WriteSnapshot(new(bytes.Buffer), s); err == nil || !strings.Contains(err.Error(), "there is no keyring yet") {
		t.Errorf("a state without keys is written: %v", err)
	}
	s.Keys = seal.NewKeyring()
	var err error
	if s.Wrapped, err = s.Keys.Wrap(secret); err != nil {
		t.Fatal(err)
	}
	read := func(frames ...[]byte) (*state.State, error) {
		var b bytes.Buffer
		w, err := seal.NewWriter(&b, s.Keys, s.Wrapped)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(bytes.Join(frames, nil)) // its error is that of Close
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return state.ReadSnapshot(&b, []seal.Secret{secret})
	}
	frame := func(tag byte, fill func(e *codec.Encoder)) []byte {
		var body codec.Encoder
		fill(&body)
		e := codec.Encoder{B: []byte{tag}}
		e.Bytes(body.B)
		return e.B
	}
	s.Index, s.Cluster = 7, "cluster"
	var whole bytes.Buffer
	if err := state.WriteSnapshot(&whole, s); err != nil {
		t.Fatal(err)
	}
	sealed, err := seal.NewReader(&whole, secret)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(sealed)
	if err != nil {
		t.Fatal(err)
	}
	const versionAt = 2 // after the tag and the length of the first part
	if plain[versionAt] != state.SnapshotVersion {
		t.Fatalf("the version is elsewhere in % x", plain)
	}
	head := func(version byte) []byte {
		b := bytes.Clone(plain[:len(plain)-2]) // without the end
		b[versionAt] = version
		return b
	}
	end := frame(state.FrameEnd, func(*codec.Encoder) {})
	role := func(holders uint64) []byte {
		return frame(state.FrameRole, func(e *codec.Encoder) {
			e.String("r")
			e.Uint(holders)
		})
	}
	huge := codec.Encoder{B: []byte{state.FrameRecord}}
	huge.Uint(1 << 62)
	for _, test := range []struct {
		name   string
		frames [][]byte
		want   string
	}{
		{"whole", [][]byte{head(state.SnapshotVersion), end}, ""},
		{"of a later version", [][]byte{head(state.SnapshotVersion + 1), end}, "upgrade"},
		{"of an earlier version", [][]byte{head(state.SnapshotVersion - 1), end}, "cannot be read any more"},
		{"with another part", [][]byte{head(state.SnapshotVersion), frame(99, func(*codec.Encoder) {}), end}, "part 99 is not known"},
		{"with a role of nobody", [][]byte{head(state.SnapshotVersion), role(0), end}, codec.ErrMalformed.Error()},
		{"with more after its end", [][]byte{head(state.SnapshotVersion), end, {0}}, codec.ErrMalformed.Error()},
		{"without an end", [][]byte{head(state.SnapshotVersion)}, codec.ErrMalformed.Error()},
		{"with a part larger than any", [][]byte{head(state.SnapshotVersion), huge.B}, codec.ErrMalformed.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := read(test.frames...)
			switch {
			case test.want == "" && (err != nil || got.Index != 7 || got.Cluster != "cluster"):
				t.Errorf("it is read as %+v, %v", got, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("the error is %v, want %q in it", err, test.want)
			}
		})
	}
	if _, err := state.ReadSnapshot(strings.NewReader("not a snapshot"), []seal.Secret{secret}); !errors.Is(err, ErrSealed) {
		t.Errorf("of other bytes the error is %v, want ErrSealed", err)
	}
}

// Who stops waiting changes nothing for the holder, whoever else waits.
func TestWaiterTakesNothingWithHim(t *testing.T) {
	m := newMachine(t)
	sessions := make(map[string]uint64)
	for i, node := range []string{"holder", "waiter", "better"} {
		sessions[node] = m.open(node)
		m.do(state.Command{Op: state.OpClaim, Node: node, Session: sessions[node], Seq: 1, Key: keyspace.RolePrefix + "r", Flag: true, Priority: int64(i), Number: 1 << 20})
	}
	before := m.s.Claims(keyspace.RolePrefix + "r")[0]
	m.do(state.Command{Op: state.OpRelease, Node: "waiter", Session: sessions["waiter"], Seq: 2, Key: keyspace.RolePrefix + "r", Number: 1})
	queue := m.s.Claims(keyspace.RolePrefix + "r")
	if len(queue) != 2 || queue[0] != before || queue[1].Node != "better" {
		t.Errorf("after a waiter has left the queue is %+v; it began with %+v", queue, before)
	}
	m.do(state.Command{Op: state.OpRelease, Node: "holder", Session: sessions["holder"], Seq: 2, Key: keyspace.RolePrefix + "r", Number: 1})
	if queue := m.s.Claims(keyspace.RolePrefix + "r"); len(queue) != 1 || queue[0].Node != "better" || queue[0].Index != m.s.Index {
		t.Errorf("after the holder has left the queue is %+v", queue)
	}
}

// A role whose holder is dead, and outlasted, is nobody's to hand over, and does not count in its group. It is so after a removal too.
func TestDeadHolder(t *testing.T) {
	m := newMachine(t)
	m.s = m.s.Configure(1, []string{"a", "b"}, []string{"a", "b"}, nil)
	a, b := m.open("a"), m.open("b")
	key := keyspace.RolePrefix + "r"
	m.do(state.Command{Op: state.OpClaim, Node: "a", Session: a, Seq: 1, Key: key, Group: "g", Flag: true, Cond: 1, Number: 1 << 20})
	m.do(state.Command{Op: state.OpClaim, Node: "b", Session: b, Seq: 1, Key: key, Group: "g", Flag: true, Cond: 1, Priority: 1, Number: 1 << 20})
	waiter := m.s.Claims(key)[1].Ref
	if loads := m.s.Loads("g", ""); loads["a"] != 1 || !m.s.Better(key, waiter) {
		t.Fatalf("alive, the holder counts as %v, and a better one is better: %v", loads, m.s.Better(key, waiter))
	}
	m.s = m.s.Configure(m.s.Index+1, []string{"b"}, []string{"b"}, nil)
	if holder := m.s.Claims(key)[0]; holder.Node != "a" || holder.HoldDown != m.s.Index {
		t.Fatalf("what a removed member may have in the kernel is not outlasted: %+v", holder)
	}
	if loads := m.s.Loads("g", ""); loads["a"] != 0 {
		t.Errorf("a dead holder counts in its group: %v", loads)
	}
	if m.s.Better(key, waiter) {
		t.Error("a dead holder is asked to hand over")
	}
	if got := m.do(state.Command{Op: state.OpMove, Node: "b", Key: key, Target: "b"}); got.Code != state.CodeNotHeld || m.s.Claims(key)[0].Yield != 0 {
		t.Errorf("a dead holder is told to hand over: %d", got.Code)
	}
}

// A session is opened for a process whose directory knows the process that had the last one, and for no other.
func TestSessionOfAnOlderDirectory(t *testing.T) {
	first, next := newBoot(1), newBoot(2)
	for _, test := range []struct {
		name      string
		processes []string
		want      string // the process that has the session then
	}{
		{"of the next process", []string{first, next}, next},
		{"of a copy of the directory before the first", []string{newBoot(1), next}, first},
	} {
		t.Run(test.name, func(t *testing.T) {
			secret, keys := seal.Secret{1}, seal.NewKeyring()
			wrapped, err := keys.Wrap(secret)
			if err != nil {
				t.Fatal(err)
			}
			open := func(index uint64, c state.Command) *raft.Log {
				c.Op, c.Node = state.OpOpen, "a"
				return &raft.Log{Index: index, Data: state.SealCommand(keys, &c)}
			}
			f := testFSM(state.NewStore(), []seal.Secret{secret}, testlog.None(), func(err error) { t.Error(err) }, func(*state.Effects) {})
			f.ApplyBatch([]*raft.Log{
				{Index: 1, Data: state.KeyringEntry("one", wrapped)},
				open(2, state.Command{Key: first, Value: state.EncodeProcesses([]string{first})}),
				open(3, state.Command{Key: next, Value: state.EncodeProcesses(test.processes), Number: 2}),
			})
			if s := f.State().Session("a"); s == nil || s.Incarnation != test.want {
				t.Errorf("the session is %+v, want that of %s", s, test.want)
			}
		})
	}
}
