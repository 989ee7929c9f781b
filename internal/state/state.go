package state

import (
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// State is all that the cluster agrees on, after the entry at index. It is immutable: apply returns another one, which
// shares what has not changed. So a reader takes no lock, and a snapshot is a pointer.
type State struct {
	Index    uint64
	Past     past          // what led here
	Cluster  string        // identity of the cluster; empty before the keyring's entry
	Keys     *seal.Keyring // nil before the keyring's entry
	Wrapped  []byte        // the keyring as the log and snapshots have it
	Records  *iradix.Tree[*Value]
	Used     [keyspace.Budgets]int64 // bytes of names and values, and of claims
	Roles    *iradix.Tree[*Role]
	Members  *iradix.Tree[Member]
	Sessions *iradix.Tree[*Session]
	// processes are the last ones of the members that have had a session, kept beyond it.
	processes *iradix.Tree[Process]
	Servers   []string    // node IDs of raft's configuration, sorted
	Voters    []string    // those of them that vote, sorted
	Elected   uint64      // index of that configuration
	Tickets   *TicketKeys // nil: there are none yet, or they were dropped
}

// Member is what a node says of itself.
type Member struct {
	ID       string // 32 hexadecimal digits, made up once
	Name     string // for people
	Addr     string // what peers dial
	InMemory bool   `json:",omitempty"` // it has no directory, and cannot come back once its process has ended
	Former   string `json:",omitempty"` // the ID of the node that it was before; empty: it was none
}

// Session is one life of a node, as far as the cluster has heard of it.
type Session struct {
	Number      uint64 // index of the entry that opened it
	Incarnation string // made up by the process
	Suspect     uint64 // index of the entry that said so: no lease is promised to it; 0: it is not
	acked       uint64
	Answers     []Answer // to commands after acked, by seq
}

// Effects are what a node acts upon after an entry, besides the state that results. A nil *effects takes none.
type Effects struct {
	Claims   []Ref    // granted, asked to yield, or ended
	Keys     []string // records that have changed; of a directory that was deleted all that were in it
	Roles    bool     // somebody else holds a role, or a queue is another one
	Sessions bool     // one was opened, suspected, cleared or ended
	Tickets  bool     // their keys are others
	Dropped  bool     // and none of before is to be used any more
}

// Ref names a claim.
type Ref struct {
	Node         string
	Session, Seq uint64
}

// compromised ends the key that certmagic moves a certificate's private key to when others may know it.
const compromised = ".compromised"

func New() *State {
	return &State{
		Records:  iradix.New[*Value](),
		Roles:    iradix.New[*Role](),
		Members:  iradix.New[Member](),
		Sessions: iradix.New[*Session](),

		processes: iradix.New[Process](),
	}
}

// Session returns the session of a node, nil if it has none.
func (s *State) Session(node string) *Session {
	v, _ := s.Sessions.Get([]byte(node))
	return v
}

// Number returns the number of a node's session, 0 if it has none.
func (s *State) Number(node string) uint64 {
	if ses := s.Session(node); ses != nil {
		return ses.Number
	}
	return 0
}

// Member returns what is known of a member.
func (s *State) Member(id string) (Member, bool) { return s.Members.Get([]byte(id)) }

// Answer returns what was said to a command of a session, and whether it has been applied.
func (s *State) Answer(node string, number, seq uint64) (Answer, bool) {
	ses := s.Session(node)
	if ses == nil || ses.Number != number {
		return Answer{Seq: seq, Index: s.Index, Code: CodeEnded}, ses != nil && ses.Number > number || ses == nil && s.Index > number
	}
	if seq <= ses.acked {
		return Answer{Seq: seq, Index: s.Index}, true // given up, or answered long ago
	}
	i, ok := slices.BinarySearchFunc(ses.Answers, seq, func(a Answer, seq uint64) int { return int(int64(a.Seq - seq)) })
	if !ok {
		return Answer{}, false
	}
	return ses.Answers[i], true
}

// Apply returns the state after the command at index, and adds what follows from it to fx. It is a pure function: every node
// computes the same.
func (s *State) Apply(index uint64, c *Command, fx *Effects) (*State, Answer) {
	n := *s
	n.Index = index
	out := Answer{Seq: c.Seq, Index: index}
	if c.Session == 0 {
		out.Code = n.change(index, c, fx)
		return &n, out
	}
	ses := n.Session(c.Node)
	if ses == nil || ses.Number != c.Session {
		out.Code = CodeEnded
		return &n, out
	}
	if a, ok := s.Answer(c.Node, c.Session, c.Seq); ok {
		return &n, a
	}
	out.Code = CodeNotHeld
	if !slices.ContainsFunc(c.Fences, func(f Fence) bool { return !n.holds(f.Role, Ref{c.Node, c.Session, f.Seq}) }) {
		out.Code = n.change(index, c, fx)
	}
	if ses = n.Session(c.Node); ses == nil { // the command has ended its own session
		return &n, out
	}
	acked := max(ses.acked, c.Acked)
	kept := insertAnswer(slices.DeleteFunc(slices.Clone(ses.Answers), func(a Answer) bool { return a.Seq <= acked }), out)
	next := *ses
	next.acked, next.Answers = acked, kept
	n.Sessions, _, _ = n.Sessions.Insert([]byte(c.Node), &next)
	return &n, out
}

// change does what the command says to s, which is still private to apply.
func (s *State) change(index uint64, c *Command, fx *Effects) Code {
	switch c.Op {
	case OpOpen:
		if !s.mayOpen(c) {
			return codeSuperseded
		}
		if s.Number(c.Node) != c.Number {
			return CodeOK // asked twice
		}
		how := endsUnconfirmed
		if c.Flag {
			how = endsClean
		}
		s.endSession(passing{index: index, time: c.Time}, c.Node, c.Number, how, fx)
		s.Sessions, _, _ = s.Sessions.Insert([]byte(c.Node), &Session{Number: index, Incarnation: c.Key})
		s.processes, _, _ = s.processes.Insert([]byte(c.Node), Process{Incarnation: c.Key, Addr: c.Target, Opened: index, Time: c.Time, stored: s.Stored(c.Node)})
		fx.session()
	case OpEnd:
		s.remember(c)
		s.end(passing{index, c.Time, c.Priority}, c, fx)
	case OpExpireHoldDown:
		s.expireHoldDown(passing{index, c.Time, c.Priority}, c.Key, c.Number, fx)
	case OpMove:
		return s.move(index, c.Key, c.Target, fx)
	case OpSuspect:
		s.remember(c)
		s.suspect(c.Target, c.Number, 0, index, fx)
	case OpClear:
		s.suspect(c.Target, c.Number, c.Cond, 0, fx)
	case OpMember:
		s.Members, _, _ = s.Members.Insert([]byte(c.Target), Member{ID: c.Target, Name: c.Key, Addr: string(c.Value), InMemory: c.Flag, Former: c.Group})
	case OpStore:
		if c.Target != "" {
			if r, ok := s.Records.Get(keyspace.Tree(c.Target)); !ok || r.Index != c.Cond {
				return CodeChanged
			}
		}
		return s.store(index, c, c.Key, c.Value, fx)
	case OpPut:
		return s.put(index, c, fx)
	case OpDelete:
		s.remove(c.Key, fx)
	case OpClaim:
		return s.claim(passing{index: index, time: c.Time}, c, fx)
	case OpRelease:
		out := s.release(passing{index: index, time: c.Time}, c.Key, Ref{c.Node, c.Session, c.Number}, fx)
		if out == CodeNotHeld {
			s.forestall(index, c)
		}
		return out
	case OpYield:
		s.yield(index, c.Key, Ref{c.Node, c.Session, c.Number}, fx)
	case OpTickets:
		return s.rotateTickets(index, c, fx)
	}
	return CodeOK
}

// forestall answers the claim that a release has overtaken on its way, so that it does nothing when it comes.
func (s *State) forestall(index uint64, c *Command) {
	ses := s.Session(c.Node)
	if _, answered := s.Answer(c.Node, c.Session, c.Number); answered {
		return
	}
	next := *ses
	next.Answers = insertAnswer(ses.Answers, Answer{Seq: c.Number, Index: index, Code: CodeNotHeld})
	s.Sessions, _, _ = s.Sessions.Insert([]byte(c.Node), &next)
}

// insertAnswer returns the answers, which are in the order of their seq, with one more.
func insertAnswer(answers []Answer, a Answer) []Answer {
	at, _ := slices.BinarySearchFunc(answers, a.Seq, func(a Answer, seq uint64) int { return int(int64(a.Seq - seq)) })
	return slices.Insert(slices.Clone(answers), at, a)
}

// suspect changes the suspicion of a session, if it is the one that it is thought to be.
func (s *State) suspect(node string, number, before, after uint64, fx *Effects) {
	if ses := s.Session(node); ses != nil && ses.Number == number && ses.Suspect == before {
		next := *ses
		next.Suspect = after
		s.Sessions, _, _ = s.Sessions.Insert([]byte(node), &next)
		fx.session()
	}
}

func (fx *Effects) session() {
	if fx != nil {
		fx.Sessions = true
	}
}

func (fx *Effects) claim(refs ...Ref) {
	if fx != nil {
		fx.Roles = true
		fx.Claims = append(fx.Claims, refs...)
	}
}

// record notes that the record at key has changed.
func (fx *Effects) record(key string) {
	if fx != nil {
		fx.Keys = append(fx.Keys, key)
	}
}

// end ends a session at its own word, that of its will, or by the verdict.
func (s *State) end(at passing, c *Command, fx *Effects) {
	how := endsClean
	switch {
	case c.Cond != 0 || c.Flag:
		how = endsExpired
	case c.Key == ByDeathNotice:
		how = endsByDeathNotice
	}
	ses := s.Session(c.Target)
	switch {
	case ses == nil || ses.Number != c.Number: // it has ended before; but now it is known that it left nothing
		if how != endsExpired {
			s.releaseAll(at, c.Target, c.Number, how, fx)
		}
	case c.Cond == 0 || c.Cond == ses.Suspect && c.Voters == s.Elected: // a verdict is good only as long as those who gave it are the voters
		s.endSession(at, c.Target, c.Number, how, fx)
	}
}

// endSession frees, in this one step, all that the session holds and awaits, but for what may be seen for a while.
func (s *State) endSession(at passing, node string, number uint64, how ending, fx *Effects) {
	if s.Session(node) == nil {
		return
	}
	s.Sessions, _, _ = s.Sessions.Delete([]byte(node))
	if p, ok := s.Process(node); ok && p.Opened == number {
		p.ended = at.index
		s.processes, _, _ = s.processes.Insert([]byte(node), p)
	}
	fx.session()
	s.releaseAll(at, node, number, how, fx)
}

// Configure returns the state after a change of raft's configuration: what a server that is gone had is freed.
func (s *State) Configure(index uint64, servers, voters []string, fx *Effects) *State {
	n := *s
	n.Index = index
	slices.Sort(servers)
	slices.Sort(voters)
	for _, id := range s.Servers {
		if slices.Contains(servers, id) {
			continue
		}
		if ses := n.Session(id); ses != nil {
			n.endSession(passing{index: index}, id, ses.Number, endsUnconfirmed, fx)
		}
		n.Members, _, _ = n.Members.Delete([]byte(id))
		n.processes, _, _ = n.processes.Delete([]byte(id))
	}
	n.Servers, n.Voters, n.Elected = servers, voters, index
	fx.session()
	return &n
}

// Suspects returns the sessions under suspicion, and by which node they are.
func (s *State) Suspects() map[string]*Session {
	var all map[string]*Session
	it := s.Sessions.Root().Iterator()
	for k, ses, ok := it.Next(); ok; k, ses, ok = it.Next() {
		if ses.Suspect != 0 {
			if all == nil {
				all = make(map[string]*Session)
			}
			all[string(k)] = ses
		}
	}
	return all
}

// IsFormer reports whether a member says that it was the node id before.
func (s *State) IsFormer(id string) bool {
	for _, other := range s.Servers {
		if m, ok := s.Member(other); ok && m.Former == id {
			return true
		}
	}
	return false
}
