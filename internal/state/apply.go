package state

import "slices"

// Apply returns the state after the command at index, and adds to fx what follows from it.
func (s *State) Apply(index uint64, c *Command, fx *Effects) (*State, Answer) {
	n := *s
	n.Index = index
	e := entry{c, index, fx}
	out := Answer{Seq: c.Seq, Index: index}
	if c.Session == 0 {
		out.Code = c.Change.apply(&n, e)
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
	if n.inForce(c) {
		out.Code = c.Change.apply(&n, e)
	}
	n.remember(c, out)
	return &n, out
}

// inForce reports whether all fences of the command are true.
func (s *State) inForce(c *Command) bool {
	return !slices.ContainsFunc(c.Fences, func(f Fence) bool { return !s.holds(f.Role, Ref{c.Node, c.Session, f.Seq}) })
}

// remember keeps the answer to a command, and drops those that have reached its node. The session
// is gone if the command has ended it.
func (s *State) remember(c *Command, a Answer) {
	ses := s.Session(c.Node)
	if ses == nil {
		return
	}
	next := *ses
	next.acked = max(ses.acked, c.Acked)
	next.Answers = insertAnswer(ses.Answers, next.acked, a)
	s.Sessions, _, _ = s.Sessions.Insert([]byte(c.Node), &next)
}
