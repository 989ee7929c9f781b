package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
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
	s  *state.State
	fx state.Effects // of all commands so far
}

func newMachine(t *testing.T) *machine { return &machine{t: t, s: state.New()} }

func (m *machine) do(c state.Command) state.Answer {
	m.t.Helper()
	decoded, err := state.DecodeCommand(c.Encode())
	if err != nil {
		m.t.Fatal(err)
	}
	if diff := cmp.Diff(c, decoded, cmp.AllowUnexported(state.Command{}), cmp.Comparer(bytes.Equal)); diff != "" {
		m.t.Fatalf("a command changes in its encoding:\n%s", diff)
	}
	before := m.s
	next, a := m.s.Apply(before.Index+1, &decoded, &m.fx)
	if before.Index+1 != next.Index {
		m.t.Fatalf("index %d after %d", next.Index, before.Index)
	}
	m.s = next
	return a
}

func (m *machine) open(node string) uint64 {
	m.t.Helper()
	m.do(state.Command{Op: state.OpOpen, Node: node, Key: "boot of " + node})
	return m.s.Session(node).Number
}

func TestStore(t *testing.T) {
	m := newMachine(t)
	ses := m.open("a")
	seq := uint64(0)
	store := func(key, value string) state.Code {
		seq++
		return m.do(state.Command{Op: state.OpStore, Node: "a", Session: ses, Seq: seq, Key: key, Value: []byte(value), Number: 1 << 20}).Code
	}
	for _, step := range []struct {
		key, value string
		want       state.Code
	}{
		{"a/b", "1", state.CodeOK},
		{"a/b-c", "22", state.CodeOK},
		{"a/d/e/f", "333", state.CodeOK},
		{"a/b/c", "x", state.CodeNotDir},
		{"a/d", "x", state.CodeIsDir},
		{"a/d/e", "x", state.CodeIsDir},
		{"a/d/e/f/g/h", "x", state.CodeNotDir},
		{"ab", "4444", state.CodeOK},
		{"a/b", "55555", state.CodeOK},
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
		if diff := cmp.Diff(list.want, m.s.List(list.dir, list.recursive)); diff != "" {
			t.Errorf("list %q, recursive %v:\n%s", list.dir, list.recursive, diff)
		}
	}
	if want := int64(len("a/b"+"55555"+"a/b-c"+"22"+"a/d/e/f"+"333") + len("ab"+"4444")); m.s.Bytes() != want {
		t.Errorf("the state has %d bytes, want %d", m.s.Bytes(), want)
	}
	seq++
	m.do(state.Command{Op: state.OpDelete, Node: "a", Session: ses, Seq: seq, Key: "a"})
	if diff := cmp.Diff([]string{"ab"}, m.s.List("", true)); diff != "" {
		t.Errorf("after deleting a directory:\n%s", diff)
	}
	if got := store("certificates/c/a/a.crt", "55555"); got != state.CodeOK || m.s.Used[keyspace.CertificateRecords] != int64(len("certificates/c/a/a.crt"+"55555")) {
		t.Errorf("a certificate: %d, %v", got, m.s.Used)
	}
	seq++
	m.do(state.Command{Op: state.OpDelete, Node: "a", Session: ses, Seq: seq, Key: ""})
	if m.s.Used != [keyspace.Budgets]int64{} || m.s.Records.Len() != 0 {
		t.Errorf("after deleting everything: %d records, %v bytes", m.s.Records.Len(), m.s.Used)
	}
}

func TestRepeatedCommandIsAnsweredFromMemory(t *testing.T) {
	m := newMachine(t)
	ses := m.open("a")
	lock := state.Command{Op: state.OpClaim, Node: "a", Session: ses, Seq: 1, Key: "l", Number: 1 << 20}
	first := m.do(lock)
	if again := m.do(lock); again != first || first.Code != state.CodeOK {
		t.Errorf("a repeated lock is answered %+v, the first time %+v", again, first)
	}
	other := m.do(state.Command{Op: state.OpClaim, Node: "a", Session: ses, Seq: 2, Acked: 1, Key: "l", Number: 1 << 20})
	if other.Code != state.CodeHeld {
		t.Errorf("another claim of the same node is answered %d, want held", other.Code)
	}
	if n := len(m.s.Session("a").Answers); n != 1 {
		t.Errorf("%d answers are kept after the first was acknowledged, want 1", n)
	}
	if again := m.do(lock); again.Code != state.CodeOK || len(m.s.Claims("l")) != 1 {
		t.Errorf("a late copy of an acknowledged command did something: %+v, %v", again, m.s.Claims("l"))
	}
}

func TestSessionEnds(t *testing.T) {
	m := newMachine(t)
	a, b := m.open("a"), m.open("b")
	m.do(state.Command{Op: state.OpClaim, Node: "a", Session: a, Seq: 1, Key: "l", Flag: true, Number: 1 << 20})
	if got := m.do(state.Command{Op: state.OpClaim, Node: "b", Session: b, Seq: 1, Key: "l", Flag: true, Number: 1 << 20}); got.Code != state.CodeQueued {
		t.Fatalf("the second claim is answered %d, want queued", got.Code)
	}
	if got := m.do(state.Command{Op: state.OpRelease, Node: "b", Session: b, Seq: 2, Key: "l", Number: 99}); got.Code != state.CodeNotHeld {
		t.Errorf("unlocking another's claim is answered %d, want not held", got.Code)
	}
	m.do(state.Command{Op: state.OpEnd, Node: "leader", Target: "a", Number: a + 1}) // another session's number: nothing happens
	if m.s.Session("a") == nil {
		t.Fatal("a session ended by another one's number")
	}
	m.do(state.Command{Op: state.OpEnd, Node: "leader", Target: "a", Number: a})
	queue := m.s.Claims("l")
	if len(queue) != 1 || queue[0].Node != "b" || queue[0].Index != m.s.Index {
		t.Errorf("after the holder's session ended the queue is %+v", queue)
	}
	if got := m.do(state.Command{Op: state.OpStore, Node: "a", Session: a, Seq: 2, Key: "late", Value: []byte("x")}); got.Code != state.CodeEnded {
		t.Errorf("a store of an ended session is answered %d, want ended", got.Code)
	}
	if _, ok := m.s.Records.Get(keyspace.Tree("late")); ok {
		t.Error("a store of an ended session took effect")
	}
	if got, ok := m.s.Answer("a", a, 2); !ok || got.Code != state.CodeEnded {
		t.Errorf("the node of an ended session learns %+v, %v", got, ok)
	}
	again := m.open("a")
	if got, ok := m.s.Answer("a", a, 2); again == a || !ok || got.Code != state.CodeEnded {
		t.Errorf("after the next session: %+v, %v", got, ok)
	}
}

func TestConfigureForgetsRemovedServers(t *testing.T) {
	m := newMachine(t)
	m.s = m.s.Configure(1, []string{"b", "a"}, nil, nil)
	a := m.open("a")
	m.do(state.Command{Op: state.OpMember, Node: "b", Target: "a", Key: "name", Value: []byte("addr")})
	m.do(state.Command{Op: state.OpMember, Node: "b", Target: "new", Key: "joins", Value: []byte("addr")})
	m.do(state.Command{Op: state.OpClaim, Node: "a", Session: a, Seq: 1, Key: "l", Flag: true, Number: 1 << 20})
	m.s = m.s.Configure(m.s.Index+1, []string{"b"}, nil, nil)
	if _, ok := m.s.Member("a"); ok || m.s.Session("a") != nil || m.s.Claims("l") != nil {
		t.Error("something of a removed server is left")
	}
	if _, ok := m.s.Member("new"); !ok {
		t.Error("a node that is about to join was forgotten")
	}
}

func TestSnapshot(t *testing.T) {
	secret := seal.Secret{1}
	m := newMachine(t)
	m.s.Keys, m.s.Cluster = seal.NewKeyring(), "cluster"
	var err error
	if m.s.Wrapped, err = m.s.Keys.Wrap(secret); err != nil {
		t.Fatal(err)
	}
	m.s = m.s.Configure(1, []string{"a", "b"}, []string{"b"}, nil)
	a := m.open("a")
	m.do(state.Command{Op: state.OpMember, Node: "a", Target: "a", Key: "name", Value: []byte("addr:1")})
	m.do(state.Command{Op: state.OpClaim, Node: "a", Session: a, Seq: 1, Key: "l", Flag: true, Number: 1 << 20})
	m.do(state.Command{Op: state.OpClaim, Node: "a", Session: a, Seq: 2, Key: "l", Flag: true, Number: 1 << 20})
	m.do(state.Command{Op: state.OpClaim, Node: "a", Session: a, Seq: 3, Key: keyspace.LockPrefix + keyspace.IssueLock + "a", Flag: true, Number: 1 << 20})
	for i, key := range []string{"x/y/z", "x/y/w", "q", "certificates/c/d/e"} {
		m.do(state.Command{Op: state.OpStore, Node: "a", Session: a, Seq: uint64(i + 4), Key: key, Value: bytes.Repeat([]byte(key), 30_000), Time: 1, Number: 1 << 20})
	}
	var sealed bytes.Buffer
	if err := state.WriteSnapshot(&sealed, m.s); err != nil {
		t.Fatal(err)
	}
	got, err := state.ReadSnapshot(bytes.NewReader(sealed.Bytes()), []seal.Secret{{2}, secret})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(flat(m.s), flat(got), cmp.AllowUnexported(state.Session{}, state.Role{}, state.Claim{}, state.Ref{}, state.Value{}, state.Answer{})); diff != "" {
		t.Errorf("the state changes in its snapshot:\n%s", diff)
	}
	for _, plain := range []string{"x/y/zx/y/z", "name\x06addr:1", "cluster"} {
		if bytes.Contains(sealed.Bytes(), []byte(plain)) {
			t.Errorf("the snapshot has %q in it", plain)
		}
	}
	if _, err := state.ReadSnapshot(bytes.NewReader(sealed.Bytes()), []seal.Secret{{2}}); !errors.Is(err, ErrSealed) {
		t.Errorf("with another secret: %v, want ErrSealed", err)
	}
	for cut := range 200 {
		if _, err := state.ReadSnapshot(bytes.NewReader(sealed.Bytes()[:sealed.Len()*cut/200]), []seal.Secret{secret}); !errors.Is(err, ErrSealed) {
			t.Fatalf("a snapshot cut at %d/200: %v, want ErrSealed", cut, err)
		}
	}
}

// flat is all of a state in a form that cmp can compare.
func flat(s *state.State) map[string]any {
	out := map[string]any{"index": s.Index, "cluster": s.Cluster, "servers": s.Servers, "voters": s.Voters, "elected": s.Elected, "bytes": s.Used, "wrapped": s.Wrapped}
	for it := s.Records.Root().Iterator(); ; {
		k, v, ok := it.Next()
		if !ok {
			break
		}
		out["record "+keyspace.Plain(k)] = v
	}
	for it := s.Roles.Root().Iterator(); ; {
		k, v, ok := it.Next()
		if !ok {
			break
		}
		out["role "+string(k)] = v
	}
	for it := s.Sessions.Root().Iterator(); ; {
		k, v, ok := it.Next()
		if !ok {
			break
		}
		out["session "+string(k)] = v
	}
	for it := s.Members.Root().Iterator(); ; {
		k, v, ok := it.Next()
		if !ok {
			break
		}
		out["member "+string(k)] = v
	}
	return out
}

func FuzzDecodeCommand(f *testing.F) {
	c := state.Command{Op: state.OpStore, Node: "a", Session: 1, Seq: 2, Acked: 1, Time: -5, Key: "k", Value: []byte("v")}
	f.Add(c.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := state.DecodeCommand(b)
		if err != nil {
			return
		}
		if again, err := state.DecodeCommand(c.Encode()); err != nil || again.Op != c.Op || again.Key != c.Key {
			t.Errorf("%+v is read back as %+v, %v", c, again, err)
		}
		state.New().Apply(1, &c, new(state.Effects))
	})
}

func FuzzReadSnapshot(f *testing.F) {
	secret := seal.Secret{1}
	s := state.New()
	s.Keys = seal.NewKeyring()
	s.Wrapped, _ = s.Keys.Wrap(secret)
	var b bytes.Buffer
	if err := state.WriteSnapshot(&b, s); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{state.FrameHead, 3, 1, 0, 0, state.FrameEnd, 0})
	f.Fuzz(func(t *testing.T, plain []byte) {
		// What is sealed rightly may still be nonsense: it must not be believed or panic.
		var b bytes.Buffer
		w, err := seal.NewWriter(&b, s.Keys, s.Wrapped)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(plain)
		w.Close()
		state.ReadSnapshot(&b, []seal.Secret{secret})
	})
}

func TestEntriesThatStopTheNode(t *testing.T) {
	secret, other := seal.Secret{1}, seal.Secret{2}
	keys := seal.NewKeyring()
	wrapped, err := keys.Wrap(secret)
	if err != nil {
		t.Fatal(err)
	}
	ring := state.KeyringEntry("c", wrapped)
	unknown := append([]byte{state.EntryVersion, state.EntryCommand}, keys.Seal([]byte{99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})...)
	for name, test := range map[string]struct {
		secrets []seal.Secret
		entries [][]byte
		want    string
	}{
		"empty":                   {[]seal.Secret{secret}, [][]byte{{}}, "malformed"},
		"another version":         {[]seal.Secret{secret}, [][]byte{{9, 'C'}}, "upgrade"},
		"another kind":            {[]seal.Secret{secret}, [][]byte{{state.EntryVersion, 'Z'}}, "upgrade"},
		"another command":         {[]seal.Secret{secret}, [][]byte{ring, unknown}, "upgrade"},
		"another secret":          {[]seal.Secret{other}, [][]byte{ring}, "cannot open"},
		"command without keyring": {[]seal.Secret{secret}, [][]byte{{state.EntryVersion, 'C', 1}}, "before the keyring"},
		"another key":             {[]seal.Secret{secret}, [][]byte{ring, state.SealCommand(seal.NewKeyring(), &state.Command{Op: state.OpStart})}, "cannot open"},
		"records of nothing":      {[]seal.Secret{secret}, [][]byte{ring, state.SealCommand(keys, &state.Command{Op: state.OpPut, Value: []byte{9}})}, "malformed"},
		"half a ticket key":       {[]seal.Secret{secret}, [][]byte{ring, state.SealCommand(keys, &state.Command{Op: state.OpTickets, Value: make([]byte, state.TicketKeySize/2)})}, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			failed := make(chan error, 1)
			f := testFSM(state.NewStore(), test.secrets, testlog.None(), func(err error) { failed <- err }, func(*state.Effects) {})
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
	f := testFSM(state.NewStore(), []seal.Secret{{1}}, testlog.None(), func(error) {}, func(*state.Effects) {})
	before := f.State()
	if err := f.Restore(io.NopCloser(strings.NewReader("not a snapshot"))); !errors.Is(err, ErrSealed) || f.State() != before {
		t.Errorf("error %v, and the state changed: %v", err, f.State() != before)
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
	f := testFSM(state.NewStore(), []seal.Secret{secret}, testlog.None(), func(err error) { t.Error(err) }, func(*state.Effects) { told++ })
	entries := []*raft.Log{
		{Index: 1, Data: state.KeyringEntry("c", wrapped)},
		{Index: 2, Data: state.SealCommand(keys, &state.Command{Op: state.OpOpen, Node: "a", Key: "boot"})},
		{Index: 3, Data: state.SealCommand(keys, &state.Command{Op: state.OpSuspect, Target: "a", Number: 2})},
	}
	f.ApplyBatch(entries[:2])
	var snapshot bytes.Buffer
	if err := state.WriteSnapshot(&snapshot, f.State()); err != nil {
		t.Fatal(err)
	}
	f.ApplyBatch(entries[2:])
	before := f.State()
	if err := f.Restore(io.NopCloser(&snapshot)); err != nil || f.State() != before {
		t.Errorf("an older snapshot is restored over a newer state: %v, index %d", err, f.State().Index)
	}
	f.ApplyBatch(entries[:2])
	if f.State().Index != 3 {
		t.Errorf("after the first entries again the state is that of index %d", f.State().Index)
	}
	f.ApplyBatch(entries[1:])
	if ses := f.State().Session("a"); ses == nil || ses.Suspect != 3 || f.State().Index != 3 {
		t.Errorf("after a replay the session is %+v at index %d", ses, f.State().Index)
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
		a := m.do(state.Command{Op: state.OpStore, Node: "a", Session: ses, Seq: seq, Acked: acked, Key: key, Number: 1 << 20})
		p.end(ses, seq)
		if _, ok := m.s.Records.Get(keyspace.Tree(key)); !ok {
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
		m.do(state.Command{Op: state.OpStore, Node: "a", Session: ses, Seq: x[0], Acked: x[1], Key: "k", Number: 1 << 20})
	}
	// what Node.lead waits for, for the batch of A and B, on the first state that it can see
	for _, seq := range []uint64{a, b} {
		if _, ok := m.s.Answer("a", ses, seq); !ok {
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
