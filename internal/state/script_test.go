package state

import (
	"bufio"
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/script"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

var rewrite = flag.Bool("rewrite", false, "write the results into testdata")

// TestScripts runs the scripts in testdata. They describe what the state machine does. What a word
// of a script means is in the table of machine.do.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			m := newMachine(t)
			script.Run(t, path, *rewrite, m.do)
		})
	}
}

// machine applies commands one after another, as the log would. It checks with each of them that
// the command survives its encoding and the state a snapshot, that nothing is written to the state
// before, and that the same command leads to the same state again.
type machine struct {
	t      testing.TB
	secret seal.Secret
	keys   *seal.Keyring
	s      *State
	seq    map[string]uint64 // of the newest command, by node
	claims map[string]uint64 // seq of the newest claim, by node and role
	saved  *machine
}

func newMachine(t testing.TB) *machine {
	m := &machine{t: t, secret: seal.Secret{1}, keys: seal.NewKeyring()}
	m.reset()
	return m
}

func (m *machine) reset() {
	m.s, m.seq, m.claims = New(), make(map[string]uint64), make(map[string]uint64)
	m.s.Cluster, m.s.Keys = "cluster", m.keys
	var err error
	if m.s.Wrapped, err = m.keys.Wrap(m.secret); err != nil {
		m.t.Fatal(err)
	}
}

// plain returns all of a state as a snapshot has it, without the seal.
func plain(s *State) string {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	s.writeFrames(&framer{w: w}, nil)
	w.Flush()
	return b.String() + fmt.Sprint(s.Used)
}

// apply applies a command as the next entry.
func (m *machine) apply(c Command) (Answer, Effects) {
	m.t.Helper()
	decoded, err := DecodeCommand(c.Encode())
	if err != nil {
		m.t.Fatalf("%+v: %v", c, err)
	}
	if diff := gocmp.Diff(c, decoded, cmpopts.EquateEmpty()); diff != "" {
		m.t.Fatalf("a command changes in its encoding (-want +got):\n%s", diff)
	}
	before := plain(m.s)
	var fx Effects
	next, a := m.s.Apply(m.s.Index+1, &decoded, &fx)
	again, _ := m.s.Apply(m.s.Index+1, &decoded, nil)
	if plain(m.s) != before {
		m.t.Fatalf("%+v was written to the state before", c)
	}
	if plain(again) != plain(next) {
		m.t.Fatalf("%+v leads to another state the second time", c)
	}
	m.install(next)
	return a, fx
}

// install makes s the state, after it went through a snapshot.
func (m *machine) install(s *State) {
	m.t.Helper()
	var b bytes.Buffer
	if err := WriteSnapshot(&b, s); err != nil {
		m.t.Fatal(err)
	}
	read, err := ReadSnapshot(&b, []seal.Secret{{2}, m.secret})
	if err != nil {
		m.t.Fatal(err)
	}
	if plain(read) != plain(s) {
		m.t.Fatalf("the state changes in a snapshot:\n%q\n%q", plain(s), plain(read))
	}
	m.s = read
}

// own makes a command of a node's session. Its number is the next one, unless the script says
// another one.
func (m *machine) own(c *script.Command, node string, change Change) Command {
	if m.s.Session(node) == nil {
		m.seq[node] = 0
	}
	m.seq[node]++
	return Command{
		Node: node, Session: c.Uint("session", m.s.Number(node)), Seq: c.Uint("seq", m.seq[node]), Acked: c.Uint("acked", 0),
		Time: m.now(c), Change: change,
	}
}

// now is the clock of the proposer: as many seconds as there are entries, unless the script says
// another time.
func (m *machine) now(c *script.Command) int64 {
	return int64(c.Uint("at", m.s.Index+1)) * int64(time.Second)
}

// yes takes an option that is yes or no.
func yes(c *script.Command, name string) bool { return c.Option(name, "no") == "yes" }

func duration(c *script.Command, name string) time.Duration {
	d, err := time.ParseDuration(c.Option(name, "0s"))
	if err != nil {
		c.Fatalf("%v", err)
	}
	return d
}

// split returns the parts of an option between commas.
func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// place reads NAME@NUMBER.
func place(c *script.Command, text string) (string, uint64) {
	name, number, _ := strings.Cut(text, "@")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		c.Fatalf("%v", err)
	}
	return name, n
}

// do runs one line of a script.
func (m *machine) do(c *script.Command) string {
	words := map[string]func(*script.Command) string{
		// cluster A B C: a new cluster whose servers these are. All of them vote, unless
		// voters=A,B.
		"cluster": func(c *script.Command) string {
			m.reset()
			return m.configure(c)
		},
		// configure A B: raft's configuration changes.
		"configure": m.configure,
		// save keeps the state. back goes back to it.
		"save": func(*script.Command) string {
			m.saved = &machine{s: m.s, seq: maps.Clone(m.seq), claims: maps.Clone(m.claims)}
			return ""
		},
		"back": func(*script.Command) string {
			m.s, m.seq, m.claims = m.saved.s, maps.Clone(m.saved.seq), maps.Clone(m.saved.claims)
			return ""
		},

		"open":         m.open,
		"leave":        m.leave,
		"suspect":      m.suspect,
		"clear":        m.clear,
		"end":          m.end,
		"death-notice": m.deathNotice,
		"sessions":     m.sessions,
		"answer":       m.answer,
		"member":       m.member,
		"members":      m.members,
		"demote":       m.demote,
		"promote":      m.promote,
		"demoted":      m.demoted,

		"raise":   m.raise,
		"version": m.version,

		"store":  m.store,
		"put":    m.put,
		"delete": m.remove,
		"load":   m.load,
		"list":   m.list,
		"used":   m.used,

		"write":     m.write,
		"items":     m.items,
		"time-over": m.timeOver,
		"deleted":   m.deleted,

		"claim":   m.claim,
		"release": m.release,
		"yield":   m.yield,
		"move":    m.move,
		"expire":  m.expire,
		"show":    m.show,
		"loads":   m.loads,
		"better":  m.better,

		"rotate":  m.rotate,
		"drop":    m.drop,
		"tickets": m.tickets,
	}
	run, ok := words[c.Name]
	if !ok {
		c.Fatalf("unknown; there are %v", slices.Sorted(maps.Keys(words)))
	}
	return run(c)
}

// run applies a command and returns its outcome and effects.
func (m *machine) run(c Command) string {
	m.t.Helper()
	a, fx := m.apply(c)
	out := fmt.Sprintf("entry %d: %v", m.s.Index, a.Code)
	if a.Index != m.s.Index {
		out += fmt.Sprintf(" (of entry %d)", a.Index)
	}
	if fx.Roles {
		out += "; roles"
	}
	for _, r := range fx.Claims {
		out += fmt.Sprintf("; notify %s/%d", r.Node, r.Seq)
	}
	if fx.Sessions {
		out += "; sessions"
	}
	if fx.Tickets {
		out += "; tickets"
	}
	if fx.Dropped {
		out += " dropped"
	}
	for _, k := range fx.Keys {
		out += "; " + k
	}
	for _, n := range fx.News {
		out += "\n" + describeNews(n)
	}
	return out + describeItems(fx)
}

func (m *machine) configure(c *script.Command) string {
	servers := c.Args()
	voters := slices.Clone(servers)
	if v := c.Option("voters", ""); v != "" {
		voters = split(v)
	}
	var fx Effects
	m.install(m.s.Configure(m.s.Index+1, servers, voters, &fx))
	out := fmt.Sprintf("entry %d: servers %v, voters %v", m.s.Index, m.s.Servers, m.s.Voters)
	for _, n := range fx.News {
		out += "\n" + describeNews(n)
	}
	return out
}

// open NODE: its process asks for a session, in place of the one that the state has.
func (m *machine) open(c *script.Command) string {
	node := c.Arg()
	change := OpenSession{
		Incarnation: c.Option("process", node+"1"), Addr: node + ":7373", Processes: split(c.Option("knows", "")),
		Replaces: c.Uint("replaces", m.s.Number(node)), Clean: yes(c, "clean"),
	}
	return m.run(Command{Node: node, Time: m.now(c), Change: change})
}

// leave NODE: its process says that its session is over.
func (m *machine) leave(c *script.Command) string {
	node := c.Arg()
	change := LeaveSession{Number: c.Uint("number", m.s.Number(node)), HoldDown: yes(c, "visible"), Stored: c.Uint("stored", 0)}
	return m.run(Command{Node: node, Time: m.now(c), Change: change})
}

func (m *machine) suspect(c *script.Command) string {
	node := c.Arg()
	return m.run(Command{Change: Suspect{Node: node, Number: c.Uint("number", m.s.Number(node)), Stored: c.Uint("stored", 0)}})
}

func (m *machine) suspicion(node string) uint64 {
	if ses := m.s.Session(node); ses != nil {
		return ses.Suspect
	}
	return 0
}

func (m *machine) clear(c *script.Command) string {
	node := c.Arg()
	change := ClearSuspicion{Node: node, Number: c.Uint("number", m.s.Number(node)), Suspicion: c.Uint("suspicion", m.suspicion(node))}
	return m.run(Command{Change: change})
}

// end NODE: the failure detector has found that its lease has expired.
func (m *machine) end(c *script.Command) string {
	node := c.Arg()
	change := EndSession{
		Node: node, Number: c.Uint("number", m.s.Number(node)), Suspicion: c.Uint("suspicion", m.suspicion(node)),
		Voters: c.Uint("voters", m.s.Elected), Silent: duration(c, "silent"), Stored: c.Uint("stored", 0),
	}
	return m.run(Command{Time: m.now(c), Change: change})
}

func (m *machine) deathNotice(c *script.Command) string {
	node := c.Arg()
	return m.run(Command{Time: m.now(c), Change: EndByDeathNotice{Node: node, Number: c.Uint("number", m.s.Number(node))}})
}

// sessions lists the sessions, and the last processes of the members.
func (m *machine) sessions(*script.Command) string {
	var out []string
	for k, ses := range Each(m.s.Sessions, nil) {
		line := fmt.Sprintf("%s: session %d of process %s", k, ses.Number, ses.Incarnation)
		if ses.Suspect != 0 {
			line += fmt.Sprintf(", suspected by entry %d", ses.Suspect)
		}
		if len(ses.Answers) > 0 || ses.acked > 0 {
			line += fmt.Sprintf(", answers after %d:", ses.acked)
			for _, a := range ses.Answers {
				line += fmt.Sprintf(" %d %v", a.Seq, a.Code)
			}
		}
		out = append(out, line)
	}
	for k, p := range Each(m.s.processes, nil) {
		line := fmt.Sprintf("%s: last process %s, opened by entry %d", k, p.Incarnation, p.Opened)
		if p.ended != 0 {
			line += fmt.Sprintf(", ended by entry %d", p.ended)
		}
		if p.stored != 0 {
			line += fmt.Sprintf(", had entry %d on its disk", p.stored)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// answer NODE: what the node learns of its command seq=NUMBER.
func (m *machine) answer(c *script.Command) string {
	node := c.Arg()
	a, ok := m.s.Answer(node, c.Uint("session", m.s.Number(node)), c.Uint("seq", 0))
	if !ok {
		return "not yet"
	}
	return a.Code.String()
}

// member NODE: it says its name and address.
func (m *machine) member(c *script.Command) string {
	id := c.Arg()
	change := SetMember{Member{ID: id, Name: c.Option("name", ""), Addr: c.Option("addr", ""), InMemory: yes(c, "in-memory"), Former: c.Option("former", ""), Zone: c.Option("zone", ""), Witness: yes(c, "witness")}}
	return m.run(Command{Change: change})
}

func (m *machine) members(*script.Command) string {
	var out []string
	for _, v := range Each(m.s.Members, nil) {
		out = append(out, fmt.Sprintf("%+v", v))
	}
	return strings.Join(out, "\n")
}

// demote NODE: it is not to vote, if least=NUMBER others do.
func (m *machine) demote(c *script.Command) string {
	return m.run(Command{Change: SetVote{Node: c.Arg(), Demotion: &Demotion{Least: c.Uint("least", 0)}}})
}

// promote NODE: it may vote.
func (m *machine) promote(c *script.Command) string {
	return m.run(Command{Change: SetVote{Node: c.Arg()}})
}

// demoted lists the members that are not to vote.
func (m *machine) demoted(*script.Command) string {
	var out []string
	for id, index := range Each(m.s.Demoted, nil) {
		out = append(out, fmt.Sprintf("%s by entry %d, can lead: %v", id, index, m.s.CanLead(string(id))))
	}
	return strings.Join(out, "\n")
}

// store NODE KEY: value=TEXT or size=BYTES, on the condition if=KEY@ENTRY, while the claim of
// fence=ROLE holds the role.
func (m *machine) store(c *script.Command) string {
	node := c.Arg()
	change := StoreRecord{Key: c.Arg(), Value: []byte(c.Option("value", "")), MaxState: int64(c.Uint("max", 1<<20))}
	if size := c.Uint("size", 0); size > 0 {
		change.Value = make([]byte, size)
	}
	if v := c.Option("if", ""); v != "" {
		key, index := place(c, v)
		change.If = &Condition{key, index}
	}
	fence := c.Option("fence", "")
	out := m.own(c, node, change)
	if fence != "" {
		out.Fences = []Fence{{name(fence), m.claims[node+" "+fence]}}
	}
	return m.run(out)
}

// put NODE KEY@SIZE …: stores several records.
func (m *machine) put(c *script.Command) string {
	node := c.Arg()
	change := PutRecords{MaxState: int64(c.Uint("max", 1<<20))}
	for _, r := range c.Args() {
		key, size := place(c, r)
		change.Records = append(change.Records, Record{key, make([]byte, size)})
	}
	return m.run(m.own(c, node, change))
}

// delete NODE KEY; the key / stands for all.
func (m *machine) remove(c *script.Command) string {
	node := c.Arg()
	return m.run(m.own(c, node, DeleteRecords{Key: strings.TrimPrefix(c.Arg(), "/")}))
}

func (m *machine) load(c *script.Command) string {
	key := c.Arg()
	v, err := m.s.Load(key, fs.ErrNotExist)
	if err != nil {
		return err.Error()
	}
	info, err := m.s.Stat(key, fs.ErrNotExist)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%q, stored at %d", v, info.Modified/int64(time.Second))
}

// list DIR; the directory / stands for the root.
func (m *machine) list(c *script.Command) string {
	keys, err := m.s.ListAll(strings.TrimPrefix(c.Arg(), "/"), yes(c, "recursive"), fs.ErrNotExist)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(keys)
}

// used says how many bytes count against each budget.
func (m *machine) used(*script.Command) string {
	var out []string
	for b := range keyspace.Budgets {
		out = append(out, fmt.Sprintf("%v %d", b, m.s.Used[b]))
	}
	return strings.Join(out, ", ")
}

// name is the role's name in the tree. A lock is written lock/NAME, a role by its name alone.
func name(role string) string {
	if strings.HasPrefix(role, keyspace.LockPrefix) || strings.HasPrefix(role, keyspace.OwnPrefix) {
		return role
	}
	return keyspace.RolePrefix + role
}

func (m *machine) claim(c *script.Command) string {
	node, role := c.Arg(), c.Arg()
	change := ClaimRole{
		Role: name(role), Group: c.Option("group", ""), Priority: int64(c.Uint("priority", 0)), Wait: c.Option("wait", "yes") == "yes",
		MaxState: int64(c.Uint("max", 1<<20)),
	}
	if yes(c, "public") {
		change.Public = &PublicRole{HoldDown: duration(c, "hold-down"), ReleasedOnDeath: yes(c, "released-on-death")}
	}
	command := m.own(c, node, change)
	out := m.run(command)
	if _, i := m.s.FindClaim(change.Role, Ref{node, command.Session, command.Seq}); i >= 0 {
		m.claims[node+" "+role] = command.Seq
	}
	return out
}

func (m *machine) release(c *script.Command) string {
	node, role := c.Arg(), c.Arg()
	return m.run(m.own(c, node, ReleaseRole{Role: name(role), Claim: c.Uint("claim", m.claims[node+" "+role])}))
}

// yield NODE ROLE: the node's claim asks the holder to hand over.
func (m *machine) yield(c *script.Command) string {
	node, role := c.Arg(), c.Arg()
	return m.run(m.own(c, node, YieldRole{Role: name(role), Claim: m.claims[node+" "+role]}))
}

// move ROLE: an operator moves it to=NODE, or away from its holder.
func (m *machine) move(c *script.Command) string {
	return m.run(Command{Change: MoveRole{Role: name(c.Arg()), Node: c.Option("to", "")}})
}

// expire ROLE: its hold-down has expired.
func (m *machine) expire(c *script.Command) string {
	role := name(c.Arg())
	return m.run(Command{Time: m.now(c), Change: ExpireHoldDown{Role: role, Began: c.Uint("began", m.s.InHoldDown()[role].HoldDown), After: duration(c, "after")}})
}

// show ROLE …: its holder and the waiting claims.
func (m *machine) show(c *script.Command) string {
	var out []string
	for _, role := range c.Args() {
		var queue []string
		for _, q := range m.s.Claims(name(role)) {
			queue = append(queue, describe(q))
		}
		out = append(out, role+": "+cmp.Or(strings.Join(queue, "; "), "free"))
	}
	return strings.Join(out, "\n")
}

func describe(q Claim) string {
	if q.Index == 0 {
		return q.Node + " waits"
	}
	out := fmt.Sprintf("%s holds, fence %d, since %d", q.Node, q.Index, q.Since/int64(time.Second))
	if q.Outage != 0 {
		out += fmt.Sprintf(" after %v", q.Outage)
	}
	if q.Pinned {
		out += ", pinned"
	}
	if q.Yield != 0 {
		out += fmt.Sprintf(", asked by entry %d to hand over to %s", q.Yield, q.Transferee.Node)
	}
	if q.HoldDown != 0 {
		out += fmt.Sprintf(", in hold-down since entry %d", q.HoldDown)
		if q.Expired {
			out += " with an expired lease"
		}
	}
	return out
}

// loads GROUP: how many roles of the group each node has.
func (m *machine) loads(c *script.Command) string { return fmt.Sprint(m.s.Loads(c.Arg(), "")) }

// better NODE ROLE: whether the node's claim should get the role from its holder.
func (m *machine) better(c *script.Command) string {
	node, role := c.Arg(), c.Arg()
	return strconv.FormatBool(m.s.Better(name(role), Ref{node, m.s.Number(node), m.claims[node+" "+role]}))
}

// rotate KEY: a byte names the key. It follows the keys that there are, unless follows=ENTRY.
func (m *machine) rotate(c *script.Command) string {
	key := bytes.Repeat([]byte(c.Arg()), TicketKeySize)
	return m.run(Command{Time: m.now(c), Change: RotateTickets{Key: key, Follows: c.Uint("follows", m.s.Tickets.MadeAt())}})
}

func (m *machine) drop(c *script.Command) string {
	return m.run(Command{Time: m.now(c), Change: DropTickets{Key: bytes.Repeat([]byte(c.Arg()), TicketKeySize)}})
}

func (m *machine) tickets(*script.Command) string {
	k := m.s.Tickets
	if k == nil {
		return "none"
	}
	first := func(key []byte) string { return string(key[:min(1, len(key))]) }
	out := fmt.Sprintf("made by entry %d at %d: next %s, current %s, previous", k.Index, k.Time/int64(time.Second), first(k.Next), cmp.Or(first(k.Current), "none"))
	for _, p := range k.Previous {
		out += " " + first(p)
	}
	return out
}
