package state

import (
	"cmp"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/codec"
)

// Session lasts from when a node gets a place in the cluster until it loses its lease or ends.
type Session struct {
	// Number is the index of the entry that opened the session.
	Number uint64

	// Incarnation names the process that has the session.
	Incarnation string

	// Suspect is the index of the entry that suspected the session. No voter grants a suspected
	// session a lease. 0: the session is not suspected.
	Suspect uint64

	acked uint64

	// Answers are the answers to the commands after acked, in the order of their Seq.
	Answers []Answer
}

func (ses *Session) encode(e *codec.Encoder) {
	e.Uint(ses.Number)
	e.String(ses.Incarnation)
	e.Uint(ses.Suspect)
	e.Uint(ses.acked)
	e.Uint(uint64(len(ses.Answers)))
	for _, a := range ses.Answers {
		e.Uint(a.Seq)
		e.Uint(a.Index)
		e.Byte(byte(a.Code))
	}
}

func decodeSession(d *codec.Decoder) *Session {
	ses := &Session{Number: d.Uint(), Incarnation: d.String(), Suspect: d.Uint(), acked: d.Uint()}
	for range d.Count() {
		ses.Answers = append(ses.Answers, Answer{Seq: d.Uint(), Index: d.Uint(), Code: Code(d.Byte())})
	}
	return ses
}

// Session returns the session of a node. It returns nil if the node has no session.
func (s *State) Session(node string) *Session {
	v, _ := s.Sessions.Get([]byte(node))
	return v
}

// Number returns the number of a node's session. It returns 0 if the node has no session.
func (s *State) Number(node string) uint64 {
	if ses := s.Session(node); ses != nil {
		return ses.Number
	}
	return 0
}

// Suspects returns the suspected sessions by node. The map is nil if there are none.
func (s *State) Suspects() map[string]*Session {
	var all map[string]*Session
	for k, ses := range Each(s.Sessions, nil) {
		if ses.Suspect != 0 {
			if all == nil {
				all = make(map[string]*Session)
			}
			all[string(k)] = ses
		}
	}
	return all
}

// Answer returns the answer to a command of a session, and whether the command has been applied.
func (s *State) Answer(node string, number, seq uint64) (Answer, bool) {
	ses := s.Session(node)
	if ses == nil || ses.Number != number {
		return Answer{Seq: seq, Index: s.Index, Code: CodeEnded}, ses != nil && ses.Number > number || ses == nil && s.Index > number
	}
	if seq <= ses.acked {
		return Answer{Seq: seq, Index: s.Index}, true // the node has given it up, or has its answer
	}
	i, ok := slices.BinarySearchFunc(ses.Answers, seq, bySeq)
	if !ok {
		return Answer{}, false
	}
	return ses.Answers[i], true
}

// forestall answers a command in advance, so that it does nothing when it is applied later.
func (s *State) forestall(node string, number uint64, a Answer) {
	ses := s.Session(node)
	if _, answered := s.Answer(node, number, a.Seq); answered {
		return
	}
	next := *ses
	next.Answers = insertAnswer(ses.Answers, ses.acked, a)
	s.Sessions, _, _ = s.Sessions.Insert([]byte(node), &next)
}

// Process returns the last process of a node that had a session.
func (s *State) Process(node string) (Process, bool) { return s.processes.Get([]byte(node)) }

// Stored returns the index of an entry that a node is known to have had on its disk. It returns 0
// if none is known.
func (s *State) Stored(node string) uint64 {
	p, _ := s.Process(node)
	return p.stored
}

// recordStored remembers what the leader knew of a node's disk when the session ended or was
// suspected.
func (s *State) recordStored(node string, number, stored uint64) {
	p, ok := s.Process(node)
	if !ok || p.Opened != number || p.stored >= stored {
		return
	}
	p.stored = stored
	s.processes, _, _ = s.processes.Insert([]byte(node), p)
}

// replaced is the cause of the end of a session whose process has not said goodbye.
const replaced = "another process of the node has taken its place"

// endSession ends a session and frees, in the same step, all that the session holds and waits for.
// Roles that enter hold-down stay held.
func (s *State) endSession(at moment, node string, number uint64, how ending, fx *Effects) {
	if s.Session(node) == nil {
		return
	}
	s.Sessions, _, _ = s.Sessions.Delete([]byte(node))
	if p, ok := s.Process(node); ok && p.Opened == number {
		p.ended = at.index
		s.processes, _, _ = s.processes.Insert([]byte(node), p)
	}
	fx.session()
	at.cause = cmp.Or(at.cause, how.cause())
	fx.report(News{
		Kind: event.SessionEnded, Index: at.index, Node: node, Cause: at.cause, Outage: at.outage,
		Unplanned: at.outage > 0 || how == endsByDeathNotice || at.cause == replaced,
	})
	s.releaseAll(at, node, number, how, fx)
	deleteOwned(s, at.index, node, fx)
}

// suspect changes the suspicion of a session from before to after. It does nothing if the suspicion
// is another one.
func (s *State) suspect(node string, number, before, after uint64, fx *Effects) {
	if ses := s.Session(node); ses != nil && ses.Number == number && ses.Suspect == before {
		next := *ses
		next.Suspect = after
		s.Sessions, _, _ = s.Sessions.Insert([]byte(node), &next)
		fx.session()
		if after != 0 {
			fx.report(News{Kind: event.SessionSuspected, Index: s.Index, Node: node})
		} else {
			fx.report(News{Kind: event.SessionCleared, Index: s.Index, Node: node})
		}
	}
}

// StartTerm is the first command of a new leader. It changes nothing but the index.
type StartTerm struct{}

func (StartTerm) number() byte              { return numberStartTerm }
func (StartTerm) encode(*codec.Encoder)     {}
func decodeStartTerm(*codec.Decoder) Change { return StartTerm{} }
func (StartTerm) apply(*State, entry) Code  { return CodeOK }

// OpenSession begins a session of the proposer. It is refused if the last process that had a
// session is not among Processes. Then the directory is an older copy, or the process died long
// ago. It does nothing if the node's session is not the one that it replaces. Then the command was
// proposed twice.
type OpenSession struct {
	// Incarnation names the process that opens the session.
	Incarnation string

	// Addr is the address that peers dial.
	Addr string

	// Processes are the incarnations that the process's directory knows.
	Processes []string

	// Replaces is the number of the session that ends. 0: there is none.
	Replaces uint64

	// Clean says that nothing of that session can be visible to clients any more.
	Clean bool
}

func (OpenSession) number() byte { return numberOpenSession }

func (c OpenSession) encode(e *codec.Encoder) {
	e.String(c.Incarnation)
	e.String(c.Addr)
	e.Uint(uint64(len(c.Processes)))
	for _, p := range c.Processes {
		e.String(p)
	}
	e.Uint(c.Replaces)
	e.Bool(c.Clean)
}

func decodeOpenSession(d *codec.Decoder) Change {
	c := OpenSession{Incarnation: d.String(), Addr: d.String()}
	for range d.Count() {
		c.Processes = append(c.Processes, d.String())
	}
	c.Replaces, c.Clean = d.Uint(), d.Bool()
	return c
}

func (c OpenSession) apply(s *State, e entry) Code {
	if !c.follows(s.Process(e.Node)) {
		return codeSuperseded
	}
	if s.Number(e.Node) != c.Replaces {
		return CodeOK
	}
	how := endsUnconfirmed
	if c.Clean {
		how = endsClean
	}
	cause := replaced
	if c.Clean {
		cause = ""
	}
	s.endSession(moment{index: e.index, time: e.Time, cause: cause}, e.Node, c.Replaces, how, e.fx)
	s.Sessions, _, _ = s.Sessions.Insert([]byte(e.Node), &Session{Number: e.index, Incarnation: c.Incarnation})
	s.processes, _, _ = s.processes.Insert([]byte(e.Node), Process{
		Incarnation: c.Incarnation, Addr: c.Addr, Opened: e.index, Time: e.Time, stored: s.Stored(e.Node),
	})
	e.fx.session()
	e.fx.report(News{Kind: event.SessionOpened, Index: e.index, Node: e.Node})
	return CodeOK
}

// follows reports whether the process may have a session after the last one that had one.
func (c OpenSession) follows(last Process, ok bool) bool {
	return !ok || last.Incarnation == c.Incarnation || ComesAfter(c.Processes, last.Incarnation)
}

// LeaveSession ends the proposer's own session.
type LeaveSession struct {
	// Number is the number of the session.
	Number uint64

	// HoldDown says that public roles with a hold-down time enter hold-down: their addresses may be
	// visible for that long.
	HoldDown bool

	// Stored is the index of an entry that the node is known to have on its disk. 0: none is known.
	Stored uint64
}

func (LeaveSession) number() byte { return numberLeaveSession }

func (c LeaveSession) encode(e *codec.Encoder) {
	e.Uint(c.Number)
	e.Bool(c.HoldDown)
	e.Uint(c.Stored)
}

func decodeLeaveSession(d *codec.Decoder) Change {
	return LeaveSession{Number: d.Uint(), HoldDown: d.Bool(), Stored: d.Uint()}
}

func (c LeaveSession) apply(s *State, e entry) Code {
	s.recordStored(e.Node, c.Number, c.Stored)
	how := endsClean
	if c.HoldDown {
		how = endsExpired
	}
	s.end(moment{index: e.index, time: e.Time, cause: "the node said goodbye"}, e.Node, c.Number, how, e.fx)
	return CodeOK
}

// end ends a session whose process is known to be gone, or says that it goes. If the session has
// ended before, end may free its roles that are in hold-down.
func (s *State) end(at moment, node string, number uint64, how ending, fx *Effects) {
	if s.Number(node) == number {
		s.endSession(at, node, number, how, fx)
	} else if how != endsExpired {
		s.releaseAll(at, node, number, how, fx)
	}
}

// EndSession ends a session whose lease has expired, as the failure detector has found. It does
// nothing unless the session is under that suspicion, and the voters are still those that reported.
type EndSession struct {
	// Node is the ID of the node whose session it is.
	Node string

	// Number is the number of the session.
	Number uint64

	// Suspicion is the index of the entry that suspected the session.
	Suspicion uint64

	// Voters is the index of the configuration whose voters have reported.
	Voters uint64

	// Silent is how long the node was silent. It is shown, never compared.
	Silent time.Duration

	// Stored is the index of an entry that the node is known to have on its disk. 0: none is known.
	Stored uint64
}

func (EndSession) number() byte { return numberEndSession }

func (c EndSession) encode(e *codec.Encoder) {
	e.String(c.Node)
	e.Uint(c.Number)
	e.Uint(c.Suspicion)
	e.Uint(c.Voters)
	e.Int(int64(c.Silent))
	e.Uint(c.Stored)
}

func decodeEndSession(d *codec.Decoder) Change {
	return EndSession{
		Node: d.String(), Number: d.Uint(), Suspicion: d.Uint(), Voters: d.Uint(), Silent: time.Duration(d.Int()), Stored: d.Uint(),
	}
}

func (c EndSession) apply(s *State, e entry) Code {
	s.recordStored(c.Node, c.Number, c.Stored)
	ses := s.Session(c.Node)
	if ses == nil || ses.Number != c.Number || ses.Suspect == 0 {
		return CodeOK
	}
	if c.Suspicion == ses.Suspect && c.Voters == s.Elected {
		s.endSession(moment{index: e.index, time: e.Time, outage: c.Silent}, c.Node, c.Number, endsExpired, e.fx)
	}
	return CodeOK
}

// EndByDeathNotice ends a session whose process has died, as the process's guard has found. It
// frees the roles that are released on death. Other public roles enter hold-down.
type EndByDeathNotice struct {
	// Node is the ID of the node whose session it is.
	Node string

	// Number is the number of the session.
	Number uint64
}

func (EndByDeathNotice) number() byte { return numberEndByDeathNotice }

func (c EndByDeathNotice) encode(e *codec.Encoder) {
	e.String(c.Node)
	e.Uint(c.Number)
}

func decodeEndByDeathNotice(d *codec.Decoder) Change {
	return EndByDeathNotice{Node: d.String(), Number: d.Uint()}
}

func (c EndByDeathNotice) apply(s *State, e entry) Code {
	s.end(moment{index: e.index, time: e.Time}, c.Node, c.Number, endsByDeathNotice, e.fx)
	return CodeOK
}

// Suspect stops the voters from granting a session a lease. It does nothing if the session is
// already suspected.
type Suspect struct {
	// Node is the ID of the node whose session it is.
	Node string

	// Number is the number of the session.
	Number uint64

	// Stored is the index of an entry that the node is known to have on its disk. 0: none is known.
	Stored uint64
}

func (Suspect) number() byte { return numberSuspect }

func (c Suspect) encode(e *codec.Encoder) {
	e.String(c.Node)
	e.Uint(c.Number)
	e.Uint(c.Stored)
}

func decodeSuspect(d *codec.Decoder) Change {
	return Suspect{Node: d.String(), Number: d.Uint(), Stored: d.Uint()}
}

func (c Suspect) apply(s *State, e entry) Code {
	s.recordStored(c.Node, c.Number, c.Stored)
	s.suspect(c.Node, c.Number, 0, e.index, e.fx)
	return CodeOK
}

// ClearSuspicion takes a suspicion back. It does nothing if the session is under another one.
type ClearSuspicion struct {
	// Node is the ID of the node whose session it is.
	Node string

	// Number is the number of the session.
	Number uint64

	// Suspicion is the index of the entry that suspected the session.
	Suspicion uint64
}

func (ClearSuspicion) number() byte { return numberClearSuspicion }

func (c ClearSuspicion) encode(e *codec.Encoder) {
	e.String(c.Node)
	e.Uint(c.Number)
	e.Uint(c.Suspicion)
}

func decodeClearSuspicion(d *codec.Decoder) Change {
	return ClearSuspicion{Node: d.String(), Number: d.Uint(), Suspicion: d.Uint()}
}

func (c ClearSuspicion) apply(s *State, e entry) Code {
	s.suspect(c.Node, c.Number, c.Suspicion, 0, e.fx)
	return CodeOK
}
