package flotilla

import (
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// state is all that the cluster agrees on, after the entry at index. It is immutable: apply returns another one, which
// shares what has not changed. So a reader takes no lock, and a snapshot is a pointer.
type state struct {
	index    uint64
	past     past          // what led here
	cluster  string        // identity of the cluster; empty before the keyring's entry
	keys     *seal.Keyring // nil before the keyring's entry
	wrapped  []byte        // the keyring as the log and snapshots have it
	records  *iradix.Tree[*record]
	used     [keyspace.Budgets]int64 // bytes of names and values, and of claims
	roles    *iradix.Tree[*role]
	members  *iradix.Tree[peerInfo]
	sessions *iradix.Tree[*session]
	// processes are the last ones of the members that have had a session, kept beyond it.
	processes *iradix.Tree[process]
	servers   []string    // node IDs of raft's configuration, sorted
	voters    []string    // those of them that vote, sorted
	elected   uint64      // index of that configuration
	tickets   *ticketKeys // nil: there are none yet, or they were dropped
}

// peerInfo is what a node says of itself.
type peerInfo struct {
	ID       string // 32 hexadecimal digits, made up once
	Name     string // for people
	Addr     string // what peers dial
	InMemory bool   `json:",omitempty"` // it has no directory, and cannot come back once its process has ended
	Former   string `json:",omitempty"` // the ID of the node that it was before; empty: it was none
}

// session is one life of a node, as far as the cluster has heard of it.
type session struct {
	number  uint64 // index of the entry that opened it
	boot    string // made up by the process
	suspect uint64 // index of the entry that said so: no lease is promised to it; 0: it is not
	acked   uint64
	answers []answer // to commands after acked, by seq
}

// effects are what a node acts upon after an entry, besides the state that results. A nil *effects takes none.
type effects struct {
	claims   []claimRef // granted, asked to yield, or ended
	keys     []string   // records that have changed; of a directory that was deleted all that were in it
	roles    bool       // somebody else holds a role, or a queue is another one
	sessions bool       // one was opened, suspected, cleared or ended
	tickets  bool       // their keys are others
	dropped  bool       // and none of before is to be used any more
}

// claimRef names a claim.
type claimRef struct {
	node         string
	session, seq uint64
}

// compromised ends the key that certmagic moves a certificate's private key to when others may know it.
const compromised = ".compromised"

func newState() *state {
	return &state{
		records:  iradix.New[*record](),
		roles:    iradix.New[*role](),
		members:  iradix.New[peerInfo](),
		sessions: iradix.New[*session](),

		processes: iradix.New[process](),
	}
}

// session returns the session of a node, nil if it has none.
func (s *state) session(node string) *session {
	v, _ := s.sessions.Get([]byte(node))
	return v
}

// number returns the number of a node's session, 0 if it has none.
func (s *state) number(node string) uint64 {
	if ses := s.session(node); ses != nil {
		return ses.number
	}
	return 0
}

// member returns what is known of a member.
func (s *state) member(id string) (peerInfo, bool) { return s.members.Get([]byte(id)) }

// answer returns what was said to a command of a session, and whether it has been applied.
func (s *state) answer(node string, number, seq uint64) (answer, bool) {
	ses := s.session(node)
	if ses == nil || ses.number != number {
		return answer{seq: seq, index: s.index, code: codeEnded}, ses != nil && ses.number > number || ses == nil && s.index > number
	}
	if seq <= ses.acked {
		return answer{seq: seq, index: s.index}, true // given up, or answered long ago
	}
	i, ok := slices.BinarySearchFunc(ses.answers, seq, func(a answer, seq uint64) int { return int(int64(a.seq - seq)) })
	if !ok {
		return answer{}, false
	}
	return ses.answers[i], true
}

// apply returns the state after the command at index, and adds what follows from it to fx. It is a pure function: every node
// computes the same.
func (s *state) apply(index uint64, c *command, fx *effects) (*state, answer) {
	n := *s
	n.index = index
	out := answer{seq: c.seq, index: index}
	if c.session == 0 {
		out.code = n.change(index, c, fx)
		return &n, out
	}
	ses := n.session(c.node)
	if ses == nil || ses.number != c.session {
		out.code = codeEnded
		return &n, out
	}
	if a, ok := s.answer(c.node, c.session, c.seq); ok {
		return &n, a
	}
	out.code = codeNotHeld
	if !slices.ContainsFunc(c.fences, func(f fence) bool { return !n.holds(f.role, claimRef{c.node, c.session, f.seq}) }) {
		out.code = n.change(index, c, fx)
	}
	if ses = n.session(c.node); ses == nil { // the command has ended its own session
		return &n, out
	}
	acked := max(ses.acked, c.acked)
	kept := insertAnswer(slices.DeleteFunc(slices.Clone(ses.answers), func(a answer) bool { return a.seq <= acked }), out)
	next := *ses
	next.acked, next.answers = acked, kept
	n.sessions, _, _ = n.sessions.Insert([]byte(c.node), &next)
	return &n, out
}

// change does what the command says to s, which is still private to apply.
func (s *state) change(index uint64, c *command, fx *effects) code {
	switch c.op {
	case opOpen:
		if !s.mayOpen(c) {
			return codeSuperseded
		}
		if s.number(c.node) != c.number {
			return codeOK // asked twice
		}
		how := endsUnsaid
		if c.flag {
			how = endsClean
		}
		s.endSession(passing{index: index, time: c.time}, c.node, c.number, how, fx)
		s.sessions, _, _ = s.sessions.Insert([]byte(c.node), &session{number: index, boot: c.key})
		s.processes, _, _ = s.processes.Insert([]byte(c.node), process{boot: c.key, addr: c.target, opened: index, time: c.time, stored: s.stored(c.node)})
		fx.session()
	case opEnd:
		s.remember(c)
		s.end(passing{index, c.time, c.priority}, c, fx)
	case opFree:
		s.free(passing{index, c.time, c.priority}, c.key, c.number, fx)
	case opMove:
		return s.move(index, c.key, c.target, fx)
	case opSuspect:
		s.remember(c)
		s.suspect(c.target, c.number, 0, index, fx)
	case opClear:
		s.suspect(c.target, c.number, c.cond, 0, fx)
	case opMember:
		s.members, _, _ = s.members.Insert([]byte(c.target), peerInfo{ID: c.target, Name: c.key, Addr: string(c.value), InMemory: c.flag, Former: c.group})
	case opStore:
		if c.target != "" {
			if r, ok := s.records.Get(keyspace.Tree(c.target)); !ok || r.index != c.cond {
				return codeChanged
			}
		}
		return s.store(index, c, c.key, c.value, fx)
	case opPut:
		return s.put(index, c, fx)
	case opDelete:
		s.remove(c.key, fx)
	case opClaim:
		return s.claim(passing{index: index, time: c.time}, c, fx)
	case opRelease:
		out := s.release(passing{index: index, time: c.time}, c.key, claimRef{c.node, c.session, c.number}, fx)
		if out == codeNotHeld {
			s.forestall(index, c)
		}
		return out
	case opYield:
		s.yield(index, c.key, claimRef{c.node, c.session, c.number}, fx)
	case opTickets:
		return s.rotateTickets(index, c, fx)
	}
	return codeOK
}

// forestall answers the claim that a release has overtaken on its way, so that it does nothing when it comes.
func (s *state) forestall(index uint64, c *command) {
	ses := s.session(c.node)
	if _, answered := s.answer(c.node, c.session, c.number); answered {
		return
	}
	next := *ses
	next.answers = insertAnswer(ses.answers, answer{seq: c.number, index: index, code: codeNotHeld})
	s.sessions, _, _ = s.sessions.Insert([]byte(c.node), &next)
}

// insertAnswer returns the answers, which are in the order of their seq, with one more.
func insertAnswer(answers []answer, a answer) []answer {
	at, _ := slices.BinarySearchFunc(answers, a.seq, func(a answer, seq uint64) int { return int(int64(a.seq - seq)) })
	return slices.Insert(slices.Clone(answers), at, a)
}

// suspect changes the suspicion of a session, if it is the one that it is thought to be.
func (s *state) suspect(node string, number, before, after uint64, fx *effects) {
	if ses := s.session(node); ses != nil && ses.number == number && ses.suspect == before {
		next := *ses
		next.suspect = after
		s.sessions, _, _ = s.sessions.Insert([]byte(node), &next)
		fx.session()
	}
}

func (fx *effects) session() {
	if fx != nil {
		fx.sessions = true
	}
}

func (fx *effects) claim(refs ...claimRef) {
	if fx != nil {
		fx.roles = true
		fx.claims = append(fx.claims, refs...)
	}
}

// record notes that the record at key has changed.
func (fx *effects) record(key string) {
	if fx != nil {
		fx.keys = append(fx.keys, key)
	}
}

// end ends a session at its own word, that of its will, or by the verdict.
func (s *state) end(at passing, c *command, fx *effects) {
	how := endsClean
	switch {
	case c.cond != 0 || c.flag:
		how = endsLapsed
	case c.key == byWill:
		how = endsWilled
	}
	ses := s.session(c.target)
	switch {
	case ses == nil || ses.number != c.number: // it has ended before; but now it is known that it left nothing
		if how != endsLapsed {
			s.releaseAll(at, c.target, c.number, how, fx)
		}
	case c.cond == 0 || c.cond == ses.suspect && c.voters == s.elected: // a verdict is good only as long as those who gave it are the voters
		s.endSession(at, c.target, c.number, how, fx)
	}
}

// endSession frees, in this one step, all that the session holds and awaits, but for what may be seen for a while.
func (s *state) endSession(at passing, node string, number uint64, how ending, fx *effects) {
	if s.session(node) == nil {
		return
	}
	s.sessions, _, _ = s.sessions.Delete([]byte(node))
	if p, ok := s.process(node); ok && p.opened == number {
		p.ended = at.index
		s.processes, _, _ = s.processes.Insert([]byte(node), p)
	}
	fx.session()
	s.releaseAll(at, node, number, how, fx)
}

// configure returns the state after a change of raft's configuration: what a server that is gone had is freed.
func (s *state) configure(index uint64, servers, voters []string, fx *effects) *state {
	n := *s
	n.index = index
	slices.Sort(servers)
	slices.Sort(voters)
	for _, id := range s.servers {
		if slices.Contains(servers, id) {
			continue
		}
		if ses := n.session(id); ses != nil {
			n.endSession(passing{index: index}, id, ses.number, endsUnsaid, fx)
		}
		n.members, _, _ = n.members.Delete([]byte(id))
		n.processes, _, _ = n.processes.Delete([]byte(id))
	}
	n.servers, n.voters, n.elected = servers, voters, index
	fx.session()
	return &n
}

// suspects returns the sessions under suspicion, and by which node they are.
func (s *state) suspects() map[string]*session {
	var all map[string]*session
	it := s.sessions.Root().Iterator()
	for k, ses, ok := it.Next(); ok; k, ses, ok = it.Next() {
		if ses.suspect != 0 {
			if all == nil {
				all = make(map[string]*session)
			}
			all[string(k)] = ses
		}
	}
	return all
}

// isFormer reports whether a member says that it was the node id before.
func (s *state) isFormer(id string) bool {
	for _, other := range s.servers {
		if m, ok := s.member(other); ok && m.Former == id {
			return true
		}
	}
	return false
}
