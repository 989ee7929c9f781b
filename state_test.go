package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// machine applies commands one after another, as the log would.
type machine struct {
	t  *testing.T
	s  *state
	fx effects // of all commands so far
}

func newMachine(t *testing.T) *machine { return &machine{t: t, s: newState()} }

func (m *machine) do(c command) answer {
	m.t.Helper()
	decoded, err := decodeCommand(c.encode())
	if err != nil {
		m.t.Fatal(err)
	}
	if diff := cmp.Diff(c, decoded, cmp.AllowUnexported(command{}), cmp.Comparer(bytes.Equal)); diff != "" {
		m.t.Fatalf("a command changes in its encoding:\n%s", diff)
	}
	before := m.s
	next, a := m.s.apply(before.index+1, &decoded, &m.fx)
	if before.index+1 != next.index {
		m.t.Fatalf("index %d after %d", next.index, before.index)
	}
	m.s = next
	return a
}

func (m *machine) open(node string) uint64 {
	m.t.Helper()
	m.do(command{op: opOpen, node: node, key: "boot of " + node})
	return m.s.session(node).number
}

func TestStore(t *testing.T) {
	m := newMachine(t)
	ses := m.open("a")
	seq := uint64(0)
	store := func(key, value string) code {
		seq++
		return m.do(command{op: opStore, node: "a", session: ses, seq: seq, key: key, value: []byte(value), number: 1 << 20}).code
	}
	for _, step := range []struct {
		key, value string
		want       code
	}{
		{"a/b", "1", codeOK},
		{"a/b-c", "22", codeOK},
		{"a/d/e/f", "333", codeOK},
		{"a/b/c", "x", codeNotDir},
		{"a/d", "x", codeIsDir},
		{"a/d/e", "x", codeIsDir},
		{"a/d/e/f/g/h", "x", codeNotDir},
		{"ab", "4444", codeOK},
		{"a/b", "55555", codeOK},
	} {
		if got := store(step.key, step.value); got != step.want {
			t.Errorf("store %s: %d, want %d", step.key, got, step.want)
		}
	}
	for _, list := range []struct {
		dir       string
		recursive bool
		want      []string
	}{
		{"", false, []string{"a", "ab"}},
		{"a", false, []string{"a/b", "a/b-c", "a/d"}},
		{"a", true, []string{"a/b", "a/b-c", "a/d", "a/d/e", "a/d/e/f"}},
		{"", true, []string{"a", "a/b", "a/b-c", "a/d", "a/d/e", "a/d/e/f", "ab"}},
		{"a/b", true, nil},
		{"nothing", false, nil},
	} {
		if diff := cmp.Diff(list.want, m.s.list(list.dir, list.recursive)); diff != "" {
			t.Errorf("list %q, recursive %v:\n%s", list.dir, list.recursive, diff)
		}
	}
	if want := int64(len("a/b"+"55555"+"a/b-c"+"22"+"a/d/e/f"+"333") + len("ab"+"4444")); m.s.bytes() != want {
		t.Errorf("the state has %d bytes, want %d", m.s.bytes(), want)
	}
	seq++
	m.do(command{op: opDelete, node: "a", session: ses, seq: seq, key: "a"})
	if diff := cmp.Diff([]string{"ab"}, m.s.list("", true)); diff != "" {
		t.Errorf("after deleting a directory:\n%s", diff)
	}
	if got := store("certificates/c/a/a.crt", "55555"); got != codeOK || m.s.used[keyspace.CertificateRecords] != int64(len("certificates/c/a/a.crt"+"55555")) {
		t.Errorf("a certificate: %d, %v", got, m.s.used)
	}
	seq++
	m.do(command{op: opDelete, node: "a", session: ses, seq: seq, key: ""})
	if m.s.used != [keyspace.Budgets]int64{} || m.s.records.Len() != 0 {
		t.Errorf("after deleting everything: %d records, %v bytes", m.s.records.Len(), m.s.used)
	}
}

func TestRepeatedCommandIsAnsweredFromMemory(t *testing.T) {
	m := newMachine(t)
	ses := m.open("a")
	lock := command{op: opClaim, node: "a", session: ses, seq: 1, key: "l", number: 1 << 20}
	first := m.do(lock)
	if again := m.do(lock); again != first || first.code != codeOK {
		t.Errorf("a repeated lock is answered %+v, the first time %+v", again, first)
	}
	other := m.do(command{op: opClaim, node: "a", session: ses, seq: 2, acked: 1, key: "l", number: 1 << 20})
	if other.code != codeHeld {
		t.Errorf("another claim of the same node is answered %d, want held", other.code)
	}
	if n := len(m.s.session("a").answers); n != 1 {
		t.Errorf("%d answers are kept after the first was acknowledged, want 1", n)
	}
	if again := m.do(lock); again.code != codeOK || len(m.s.claims("l")) != 1 {
		t.Errorf("a late copy of an acknowledged command did something: %+v, %v", again, m.s.claims("l"))
	}
}

func TestSessionEnds(t *testing.T) {
	m := newMachine(t)
	a, b := m.open("a"), m.open("b")
	m.do(command{op: opClaim, node: "a", session: a, seq: 1, key: "l", flag: true, number: 1 << 20})
	if got := m.do(command{op: opClaim, node: "b", session: b, seq: 1, key: "l", flag: true, number: 1 << 20}); got.code != codeQueued {
		t.Fatalf("the second claim is answered %d, want queued", got.code)
	}
	if got := m.do(command{op: opRelease, node: "b", session: b, seq: 2, key: "l", number: 99}); got.code != codeNotHeld {
		t.Errorf("unlocking another's claim is answered %d, want not held", got.code)
	}
	m.do(command{op: opEnd, node: "leader", target: "a", number: a + 1}) // another session's number: nothing happens
	if m.s.session("a") == nil {
		t.Fatal("a session ended by another one's number")
	}
	m.do(command{op: opEnd, node: "leader", target: "a", number: a})
	queue := m.s.claims("l")
	if len(queue) != 1 || queue[0].node != "b" || queue[0].index != m.s.index {
		t.Errorf("after the holder's session ended the queue is %+v", queue)
	}
	if got := m.do(command{op: opStore, node: "a", session: a, seq: 2, key: "late", value: []byte("x")}); got.code != codeEnded {
		t.Errorf("a store of an ended session is answered %d, want ended", got.code)
	}
	if _, ok := m.s.records.Get(keyspace.Tree("late")); ok {
		t.Error("a store of an ended session took effect")
	}
	if got, ok := m.s.answer("a", a, 2); !ok || got.code != codeEnded {
		t.Errorf("the node of an ended session learns %+v, %v", got, ok)
	}
	again := m.open("a")
	if got, ok := m.s.answer("a", a, 2); again == a || !ok || got.code != codeEnded {
		t.Errorf("after the next session: %+v, %v", got, ok)
	}
}

func TestConfigureForgetsRemovedServers(t *testing.T) {
	m := newMachine(t)
	m.s = m.s.configure(1, []string{"b", "a"}, nil, nil)
	a := m.open("a")
	m.do(command{op: opMember, node: "b", target: "a", key: "name", value: []byte("addr")})
	m.do(command{op: opMember, node: "b", target: "new", key: "joins", value: []byte("addr")})
	m.do(command{op: opClaim, node: "a", session: a, seq: 1, key: "l", flag: true, number: 1 << 20})
	m.s = m.s.configure(m.s.index+1, []string{"b"}, nil, nil)
	if _, ok := m.s.member("a"); ok || m.s.session("a") != nil || m.s.claims("l") != nil {
		t.Error("something of a removed server is left")
	}
	if _, ok := m.s.member("new"); !ok {
		t.Error("a node that is about to join was forgotten")
	}
}

func TestSnapshot(t *testing.T) {
	secret := seal.Secret{1}
	m := newMachine(t)
	m.s.keys, m.s.cluster = seal.NewKeyring(), "cluster"
	var err error
	if m.s.wrapped, err = m.s.keys.Wrap(secret); err != nil {
		t.Fatal(err)
	}
	m.s = m.s.configure(1, []string{"a", "b"}, []string{"b"}, nil)
	a := m.open("a")
	m.do(command{op: opMember, node: "a", target: "a", key: "name", value: []byte("addr:1")})
	m.do(command{op: opClaim, node: "a", session: a, seq: 1, key: "l", flag: true, number: 1 << 20})
	m.do(command{op: opClaim, node: "a", session: a, seq: 2, key: "l", flag: true, number: 1 << 20})
	m.do(command{op: opClaim, node: "a", session: a, seq: 3, key: keyspace.LockPrefix + keyspace.IssueLock + "a", flag: true, number: 1 << 20})
	for i, key := range []string{"x/y/z", "x/y/w", "q", "certificates/c/d/e"} {
		m.do(command{op: opStore, node: "a", session: a, seq: uint64(i + 4), key: key, value: bytes.Repeat([]byte(key), 30_000), time: 1, number: 1 << 20})
	}
	var sealed bytes.Buffer
	if err := writeSnapshot(&sealed, m.s); err != nil {
		t.Fatal(err)
	}
	got, err := readSnapshot(bytes.NewReader(sealed.Bytes()), []seal.Secret{{2}, secret})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(flat(m.s), flat(got), cmp.AllowUnexported(session{}, role{}, claim{}, claimRef{}, record{}, answer{})); diff != "" {
		t.Errorf("the state changes in its snapshot:\n%s", diff)
	}
	for _, plain := range []string{"x/y/zx/y/z", "name\x06addr:1", "cluster"} {
		if bytes.Contains(sealed.Bytes(), []byte(plain)) {
			t.Errorf("the snapshot has %q in it", plain)
		}
	}
	if _, err := readSnapshot(bytes.NewReader(sealed.Bytes()), []seal.Secret{{2}}); !errors.Is(err, ErrSealed) {
		t.Errorf("with another secret: %v, want ErrSealed", err)
	}
	for cut := range 200 {
		if _, err := readSnapshot(bytes.NewReader(sealed.Bytes()[:sealed.Len()*cut/200]), []seal.Secret{secret}); !errors.Is(err, ErrSealed) {
			t.Fatalf("a snapshot cut at %d/200: %v, want ErrSealed", cut, err)
		}
	}
}

// flat is all of a state in a form that cmp can compare.
func flat(s *state) map[string]any {
	out := map[string]any{"index": s.index, "cluster": s.cluster, "servers": s.servers, "voters": s.voters, "elected": s.elected, "bytes": s.used, "wrapped": s.wrapped}
	for it := s.records.Root().Iterator(); ; {
		k, v, ok := it.Next()
		if !ok {
			break
		}
		out["record "+keyspace.Plain(k)] = v
	}
	for it := s.roles.Root().Iterator(); ; {
		k, v, ok := it.Next()
		if !ok {
			break
		}
		out["role "+string(k)] = v
	}
	for it := s.sessions.Root().Iterator(); ; {
		k, v, ok := it.Next()
		if !ok {
			break
		}
		out["session "+string(k)] = v
	}
	for it := s.members.Root().Iterator(); ; {
		k, v, ok := it.Next()
		if !ok {
			break
		}
		out["member "+string(k)] = v
	}
	return out
}

func FuzzDecodeCommand(f *testing.F) {
	c := command{op: opStore, node: "a", session: 1, seq: 2, acked: 1, time: -5, key: "k", value: []byte("v")}
	f.Add(c.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err != nil {
			return
		}
		if again, err := decodeCommand(c.encode()); err != nil || again.op != c.op || again.key != c.key {
			t.Errorf("%+v is read back as %+v, %v", c, again, err)
		}
		newState().apply(1, &c, new(effects))
	})
}

func FuzzReadSnapshot(f *testing.F) {
	secret := seal.Secret{1}
	s := newState()
	s.keys = seal.NewKeyring()
	s.wrapped, _ = s.keys.Wrap(secret)
	var b bytes.Buffer
	if err := writeSnapshot(&b, s); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{frameHead, 3, 1, 0, 0, frameEnd, 0})
	f.Fuzz(func(t *testing.T, plain []byte) {
		// What is sealed rightly may still be nonsense: it must not be believed or panic.
		var b bytes.Buffer
		w, err := seal.NewWriter(&b, s.keys, s.wrapped)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(plain)
		w.Close()
		readSnapshot(&b, []seal.Secret{secret})
	})
}

func TestEntriesThatStopTheNode(t *testing.T) {
	secret, other := seal.Secret{1}, seal.Secret{2}
	keys := seal.NewKeyring()
	wrapped, err := keys.Wrap(secret)
	if err != nil {
		t.Fatal(err)
	}
	ring := keyringEntry("c", wrapped)
	unknown := append([]byte{entryVersion, entryCommand}, keys.Seal([]byte{99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})...)
	for name, test := range map[string]struct {
		secrets []seal.Secret
		entries [][]byte
		want    string
	}{
		"empty":                   {[]seal.Secret{secret}, [][]byte{{}}, "malformed"},
		"another version":         {[]seal.Secret{secret}, [][]byte{{9, 'C'}}, "upgrade"},
		"another kind":            {[]seal.Secret{secret}, [][]byte{{entryVersion, 'Z'}}, "upgrade"},
		"another command":         {[]seal.Secret{secret}, [][]byte{ring, unknown}, "upgrade"},
		"another secret":          {[]seal.Secret{other}, [][]byte{ring}, "cannot open"},
		"command without keyring": {[]seal.Secret{secret}, [][]byte{{entryVersion, 'C', 1}}, "before the keyring"},
		"another key":             {[]seal.Secret{secret}, [][]byte{ring, sealCommand(seal.NewKeyring(), &command{op: opStart})}, "cannot open"},
		"records of nothing":      {[]seal.Secret{secret}, [][]byte{ring, sealCommand(keys, &command{op: opPut, value: []byte{9}})}, "malformed"},
		"half a ticket key":       {[]seal.Secret{secret}, [][]byte{ring, sealCommand(keys, &command{op: opTickets, value: make([]byte, ticketKeySize/2)})}, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			failed := make(chan error, 1)
			f := newFSM(test.secrets, testlog.None(), func(err error) { failed <- err }, func(*effects) {})
			done := make(chan struct{})
			finished := false
			go func() {
				defer close(done)
				for i, e := range test.entries {
					f.ApplyBatch([]*raft.Log{{Index: uint64(i + 1), Type: raft.LogCommand, Data: e}})
				}
				finished = true
			}()
			<-done
			if finished {
				t.Fatal("the entry was passed over")
			}
			if err := <-failed; !strings.Contains(err.Error(), test.want) {
				t.Errorf("the node stops with %q, want %q in it", err, test.want)
			}
		})
	}
}

func TestRestoreKeepsTheStateOnError(t *testing.T) {
	f := newFSM([]seal.Secret{{1}}, testlog.None(), func(error) {}, func(*effects) {})
	before := f.state()
	if err := f.Restore(io.NopCloser(strings.NewReader("not a snapshot"))); !errors.Is(err, ErrSealed) || f.state() != before {
		t.Errorf("error %v, and the state changed: %v", err, f.state() != before)
	}
}

// The state never goes back, whatever raft replays: a voter that has applied a suspicion and acted on it must go on knowing it.
func TestStateNeverGoesBack(t *testing.T) {
	secret := seal.Secret{1}
	keys := seal.NewKeyring()
	wrapped, err := keys.Wrap(secret)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	f := newFSM([]seal.Secret{secret}, testlog.None(), func(err error) { t.Error(err) }, func(*effects) { told++ })
	entries := []*raft.Log{
		{Index: 1, Data: keyringEntry("c", wrapped)},
		{Index: 2, Data: sealCommand(keys, &command{op: opOpen, node: "a", key: "boot"})},
		{Index: 3, Data: sealCommand(keys, &command{op: opSuspect, target: "a", number: 2})},
	}
	f.ApplyBatch(entries[:2])
	var snapshot bytes.Buffer
	if err := writeSnapshot(&snapshot, f.state()); err != nil {
		t.Fatal(err)
	}
	f.ApplyBatch(entries[2:])
	before := f.state()
	if err := f.Restore(io.NopCloser(&snapshot)); err != nil || f.state() != before {
		t.Errorf("an older snapshot is restored over a newer state: %v, index %d", err, f.state().index)
	}
	f.ApplyBatch(entries[:2])
	if f.state().index != 3 {
		t.Errorf("after the first entries again the state is that of index %d", f.state().index)
	}
	f.ApplyBatch(entries[1:])
	if ses := f.state().session("a"); ses == nil || ses.suspect != 3 || f.state().index != 3 {
		t.Errorf("after a replay the session is %+v at index %d", ses, f.state().index)
	}
}

// A caller that looked at the state before its session was replaced does not make numbers come twice: the second command would be
// answered from memory, and not carried out.
func TestNumbersComeOnce(t *testing.T) {
	m := newMachine(t)
	p := newProposer(nil)
	m.open("other")
	ses := m.open("a")
	put := func(key string) {
		seq, acked := p.begin(ses)
		a := m.do(command{op: opStore, node: "a", session: ses, seq: seq, acked: acked, key: key, number: 1 << 20})
		p.end(ses, seq)
		if _, ok := m.s.records.Get(keyspace.Tree(key)); !ok {
			t.Errorf("%s: answer %+v, and it is not stored", key, a)
		}
	}
	put("one")
	p.begin(ses - 1)
	put("two")
}

// A command that its caller has given up is answered too: others travel with it.
func TestGivenUpCommandIsAnswered(t *testing.T) {
	m := newMachine(t)
	ses := m.open("a")
	p := newProposer(nil)
	a, ackedA := p.begin(ses)
	b, ackedB := p.begin(ses)
	p.end(ses, a) // its context is over
	c, ackedC := p.begin(ses)
	for _, x := range [][2]uint64{{a, ackedA}, {b, ackedB}, {c, ackedC}} {
		m.do(command{op: opStore, node: "a", session: ses, seq: x[0], acked: x[1], key: "k", number: 1 << 20})
	}
	// what Node.lead waits for, for the batch of A and B, on the first state that it can see
	for _, seq := range []uint64{a, b} {
		if _, ok := m.s.answer("a", ses, seq); !ok {
			t.Errorf("lead waits in vain for the answer to %d", seq)
		}
	}
}

func TestCleanKey(t *testing.T) {
	for key, want := range map[string]string{
		"": "", "a": "a", "a/b": "a/b", "a.b/..c/d..": "a.b/..c/d..", ".a": ".a",
		"/": "", "/a": "a", "a/": "a", "a//b": "a/b", "a/./b": "a/b", "a/../b": "b", ".": "", "a/..": "", "//a//": "a",
	} {
		if got, err := keyspace.Clean(key); got != want || err != nil {
			t.Errorf("%q is cleaned to %q, %v; want %q", key, got, err, want)
		}
	}
	for key, want := range map[string]string{
		"a\x00b": "zero byte", strings.Repeat("x", MaxName+1): "the limit is 1024",
		"..": "leads out", "../a": "leads out", "/../a": "leads out", "a/../../certificates": "leads out", "a/../..": "leads out", "./../a/": "leads out",
	} {
		if got, err := keyspace.Clean(key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is cleaned to %q, %v; want an error with %q", key, got, err, want)
		}
	}
}
