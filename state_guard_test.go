package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/keyspace"
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
		if got := m.s.session("a").suspect; got != suspect {
			t.Errorf("%s: suspicion %d, want %d", why, got, suspect)
		}
	}
	m.do(command{op: opSuspect, target: "a", number: a + 1})
	want("another session was suspected", 0)
	m.do(command{op: opSuspect, target: "a", number: a})
	first := m.s.index
	want("it was suspected", first)
	m.do(command{op: opSuspect, target: "a", number: a})
	want("it was suspected again", first)
	m.do(command{op: opClear, target: "a", number: a + 1, cond: first})
	want("another session was cleared", first)
	m.do(command{op: opClear, target: "a", number: a, cond: first})
	want("it was cleared", 0)
	m.do(command{op: opSuspect, target: "a", number: a})
	second := m.s.index
	m.do(command{op: opClear, target: "a", number: a, cond: first})
	want("an earlier suspicion was cleared", second)
}

// A session ends by the reports that count: those about the suspicion that it is under, by those who vote now.
func TestVerdictCountsItsOwn(t *testing.T) {
	m := newMachine(t)
	m.s = m.s.configure(1, []string{"a", "b", "c"}, []string{"a", "b", "c"}, nil)
	a := m.open("a")
	m.do(command{op: opSuspect, target: "a", number: a})
	first := m.s.index
	m.do(command{op: opClear, target: "a", number: a, cond: first})
	m.do(command{op: opSuspect, target: "a", number: a})
	second, before := m.s.index, m.s.elected
	m.s = m.s.configure(m.s.index+1, []string{"a", "b", "c"}, []string{"a", "b"}, nil)
	for why, c := range map[string]command{
		"an earlier suspicion":  {cond: first, voters: m.s.elected},
		"earlier voters":        {cond: second, voters: before},
		"both":                  {cond: first, voters: before},
		"another session of it": {cond: second, voters: m.s.elected, number: a + 1},
	} {
		c.op, c.target = opEnd, "a"
		if c.number == 0 {
			c.number = a
		}
		if m.do(c); m.s.number("a") != a {
			t.Fatalf("a verdict of %s ends the session", why)
		}
	}
	if m.do(command{op: opEnd, target: "a", number: a, cond: second, voters: m.s.elected}); m.s.session("a") != nil {
		t.Error("the verdict that counts does not end the session")
	}
}

// A command of a session that has ended does nothing, also when its node has another session.
func TestCommandOfTheSessionBefore(t *testing.T) {
	m := newMachine(t)
	old := m.open("a")
	m.do(command{op: opEnd, target: "a", number: old})
	ses := m.open("a")
	store := command{op: opStore, node: "a", session: old, seq: 1, key: "k", number: 1 << 20}
	if got := m.do(store); got.code != codeEnded || m.s.records.Len() != 0 {
		t.Errorf("a command of the session before is answered %d, and there are %d records", got.code, m.s.records.Len())
	}
	store.session = ses
	if got := m.do(store); got.code != codeOK || m.s.records.Len() != 1 {
		t.Errorf("a command of the session is answered %d, and there are %d records", got.code, m.s.records.Len())
	}
}

// Who waits holds nothing, and nobody is told that he does.
func TestSecondClaimWaits(t *testing.T) {
	m := newMachine(t)
	claims := make(map[string]command)
	for _, node := range []string{"a", "b"} {
		claims[node] = command{op: opClaim, node: node, session: m.open(node), seq: 1, key: "r", flag: true, number: 1 << 20}
		m.do(claims[node])
	}
	queue := m.s.claims("r")
	if len(queue) != 2 || queue[0].node != "a" || queue[0].index == 0 || queue[1].index != 0 {
		t.Errorf("of two claims the queue is %+v", queue)
	}
	if !slices.Contains(m.fx.claims, queue[0].claimRef) || slices.Contains(m.fx.claims, queue[1].claimRef) {
		t.Errorf("told are %v", m.fx.claims)
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
		entries = append(entries, &raft.Log{Index: uint64(i + 1), Data: keyringEntry(name, wrapped)})
	}
	entries = append(entries, &raft.Log{Index: 3, Data: sealCommand(rings[0], &command{op: opOpen, node: "a", key: "boot"})})
	f := newFSM([]seal.Secret{secret}, testlog.None(), func(err error) { t.Error(err) }, func(*effects) {})
	done := make(chan struct{})
	go func() { // which ends if an entry cannot be opened
		defer close(done)
		f.ApplyBatch(entries)
	}()
	<-done
	if s := f.state(); s.cluster != "one" || s.index != 3 || s.session("a") == nil {
		t.Errorf("after the keys of two clusters it is %q, at index %d", s.cluster, s.index)
	}
}

// What a snapshot has in it is sealed rightly and may still be nothing that this version understands, or nonsense.
func TestSnapshotsThatAreRefused(t *testing.T) {
	secret := seal.Secret{1}
	s := newState()
	if err := writeSnapshot(new(bytes.Buffer), s); err == nil || !strings.Contains(err.Error(), "there is no keyring yet") {
		t.Errorf("a state without keys is written: %v", err)
	}
	s.keys = seal.NewKeyring()
	var err error
	if s.wrapped, err = s.keys.Wrap(secret); err != nil {
		t.Fatal(err)
	}
	read := func(frames ...[]byte) (*state, error) {
		var b bytes.Buffer
		w, err := seal.NewWriter(&b, s.keys, s.wrapped)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(bytes.Join(frames, nil)) // its error is that of Close
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return readSnapshot(&b, []seal.Secret{secret})
	}
	frame := func(tag byte, fill func(e *codec.Encoder)) []byte {
		var body codec.Encoder
		fill(&body)
		e := codec.Encoder{B: []byte{tag}}
		e.Bytes(body.B)
		return e.B
	}
	s.index, s.cluster = 7, "cluster"
	var whole bytes.Buffer
	if err := writeSnapshot(&whole, s); err != nil {
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
	if plain[versionAt] != snapshotVersion {
		t.Fatalf("the version is elsewhere in % x", plain)
	}
	head := func(version byte) []byte {
		b := bytes.Clone(plain[:len(plain)-2]) // without the end
		b[versionAt] = version
		return b
	}
	end := frame(frameEnd, func(*codec.Encoder) {})
	role := func(holders uint64) []byte {
		return frame(frameRole, func(e *codec.Encoder) {
			e.String("r")
			e.Uint(holders)
		})
	}
	huge := codec.Encoder{B: []byte{frameRecord}}
	huge.Uint(1 << 62)
	for _, test := range []struct {
		name   string
		frames [][]byte
		want   string
	}{
		{"whole", [][]byte{head(snapshotVersion), end}, ""},
		{"of a later version", [][]byte{head(snapshotVersion + 1), end}, "upgrade"},
		{"of an earlier version", [][]byte{head(snapshotVersion - 1), end}, "cannot be read any more"},
		{"with another part", [][]byte{head(snapshotVersion), frame(99, func(*codec.Encoder) {}), end}, "part 99 is not known"},
		{"with a role of nobody", [][]byte{head(snapshotVersion), role(0), end}, codec.ErrMalformed.Error()},
		{"with more after its end", [][]byte{head(snapshotVersion), end, {0}}, codec.ErrMalformed.Error()},
		{"without an end", [][]byte{head(snapshotVersion)}, codec.ErrMalformed.Error()},
		{"with a part larger than any", [][]byte{head(snapshotVersion), huge.B}, codec.ErrMalformed.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := read(test.frames...)
			switch {
			case test.want == "" && (err != nil || got.index != 7 || got.cluster != "cluster"):
				t.Errorf("it is read as %+v, %v", got, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("the error is %v, want %q in it", err, test.want)
			}
		})
	}
	if _, err := readSnapshot(strings.NewReader("not a snapshot"), []seal.Secret{secret}); !errors.Is(err, ErrSealed) {
		t.Errorf("of other bytes the error is %v, want ErrSealed", err)
	}
}

// Who stops waiting changes nothing for the holder, whoever else waits.
func TestWaiterTakesNothingWithHim(t *testing.T) {
	m := newMachine(t)
	sessions := make(map[string]uint64)
	for i, node := range []string{"holder", "waiter", "better"} {
		sessions[node] = m.open(node)
		m.do(command{op: opClaim, node: node, session: sessions[node], seq: 1, key: keyspace.RolePrefix + "r", flag: true, priority: int64(i), number: 1 << 20})
	}
	before := m.s.claims(keyspace.RolePrefix + "r")[0]
	m.do(command{op: opRelease, node: "waiter", session: sessions["waiter"], seq: 2, key: keyspace.RolePrefix + "r", number: 1})
	queue := m.s.claims(keyspace.RolePrefix + "r")
	if len(queue) != 2 || queue[0] != before || queue[1].node != "better" {
		t.Errorf("after a waiter has left the queue is %+v; it began with %+v", queue, before)
	}
	m.do(command{op: opRelease, node: "holder", session: sessions["holder"], seq: 2, key: keyspace.RolePrefix + "r", number: 1})
	if queue := m.s.claims(keyspace.RolePrefix + "r"); len(queue) != 1 || queue[0].node != "better" || queue[0].index != m.s.index {
		t.Errorf("after the holder has left the queue is %+v", queue)
	}
}

// A role whose holder is dead, and outlasted, is nobody's to hand over, and does not count in its group. It is so after a removal too.
func TestDeadHolder(t *testing.T) {
	m := newMachine(t)
	m.s = m.s.configure(1, []string{"a", "b"}, []string{"a", "b"}, nil)
	a, b := m.open("a"), m.open("b")
	key := keyspace.RolePrefix + "r"
	m.do(command{op: opClaim, node: "a", session: a, seq: 1, key: key, group: "g", flag: true, cond: 1, number: 1 << 20})
	m.do(command{op: opClaim, node: "b", session: b, seq: 1, key: key, group: "g", flag: true, cond: 1, priority: 1, number: 1 << 20})
	waiter := m.s.claims(key)[1].claimRef
	if loads := m.s.loads("g", ""); loads["a"] != 1 || !m.s.better(key, waiter) {
		t.Fatalf("alive, the holder counts as %v, and a better one is better: %v", loads, m.s.better(key, waiter))
	}
	m.s = m.s.configure(m.s.index+1, []string{"b"}, []string{"b"}, nil)
	if holder := m.s.claims(key)[0]; holder.node != "a" || holder.ghost != m.s.index {
		t.Fatalf("what a removed member may have in the kernel is not outlasted: %+v", holder)
	}
	if loads := m.s.loads("g", ""); loads["a"] != 0 {
		t.Errorf("a dead holder counts in its group: %v", loads)
	}
	if m.s.better(key, waiter) {
		t.Error("a dead holder is asked to hand over")
	}
	if got := m.do(command{op: opMove, node: "b", key: key, target: "b"}); got.code != codeNotHeld || m.s.claims(key)[0].yield != 0 {
		t.Errorf("a dead holder is told to hand over: %d", got.code)
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
			open := func(index uint64, c command) *raft.Log {
				c.op, c.node = opOpen, "a"
				return &raft.Log{Index: index, Data: sealCommand(keys, &c)}
			}
			f := newFSM([]seal.Secret{secret}, testlog.None(), func(err error) { t.Error(err) }, func(*effects) {})
			f.ApplyBatch([]*raft.Log{
				{Index: 1, Data: keyringEntry("one", wrapped)},
				open(2, command{key: first, value: encodeProcesses([]string{first})}),
				open(3, command{key: next, value: encodeProcesses(test.processes), number: 2}),
			})
			if s := f.state().session("a"); s == nil || s.boot != test.want {
				t.Errorf("the session is %+v, want that of %s", s, test.want)
			}
		})
	}
}
