package state

import "fmt"

// divergedError says that a node has another past than its cluster.
type divergedError struct{ detail string }

func (e *divergedError) Error() string {
	return "this node has applied entries that its cluster does not have: " + e.detail +
		". A data directory of another node was restored from an older copy, and so the cluster has lost what was acknowledged here." +
		" This node's directory is left as it is. To go on with what the cluster has, move the directory away and start the node again: it joins as a new one"
}

// Diverged returns the error of a node that has another past than its cluster. The arguments
// describe the difference, as for fmt.Sprintf.
func Diverged(format string, args ...any) error {
	return &divergedError{fmt.Sprintf(format, args...)}
}

// Extends returns an error unless old can be in the past of s. What has not changed in s since old
// must be in old. An error proves that there are two pasts. No error proves nothing: only a
// comparison of the logs shows that the past is one.
func (s *State) Extends(old *State) error {
	if s.Index == old.Index && s.Past.Sum != old.Past.Sum {
		return Diverged("what leads to entry %d differs", s.Index)
	}
	if t, ok := s.Past.at(old.Index); ok && t.term != old.Past.term {
		return Diverged("entry %d has the term %d here and %d there", old.Index, old.Past.term, t.term)
	}
	for _, t := range s.Past.terms {
		if was, ok := old.Past.at(t.index); ok && t.index <= old.Index && was != t {
			return Diverged("what leads to entry %d differs", t.index)
		}
	}
	for node, ses := range Each(s.Sessions, nil) {
		if was := old.Session(string(node)); ses.Number <= old.Index && (was == nil || was.Number != ses.Number || was.Incarnation != ses.Incarnation) {
			return Diverged("the session of entry %d is not known here", ses.Number)
		}
	}
	for node, p := range Each(s.processes, nil) {
		was, _ := old.processes.Get(node)
		if p.Opened <= old.Index && (was.Opened != p.Opened || was.Incarnation != p.Incarnation) {
			return Diverged("the session of entry %d is not known here", p.Opened)
		}
		if p.ended != 0 && p.ended <= old.Index && was.Opened == p.Opened && was.ended != p.ended {
			return Diverged("the session of entry %d did not end here by entry %d", p.Opened, p.ended)
		}
	}
	for id, index := range Each(s.Demoted, nil) {
		if was, _ := old.Demoted.Get(id); index <= old.Index && was != index {
			return Diverged("the demotion of entry %d is not known here", index)
		}
	}
	for _, v := range s.Evictions {
		if was, _ := old.Evictions.Of(v.Node); v.Index <= old.Index && was.Index != v.Index {
			return Diverged("the eviction of entry %d is not known here", v.Index)
		}
	}
	for name, i := range Each(s.Items.ByName, nil) {
		if was, _ := old.Items.ByName.Get(name); i.Version <= old.Index && (was == nil || was.Version != i.Version) {
			return Diverged("the item of entry %d is not known here", i.Version)
		}
	}
	for k, r := range Each(s.Records, nil) {
		if was, _ := old.Records.Get(k); r.Index <= old.Index && (was == nil || was.Index != r.Index) {
			return Diverged("the record of entry %d is not known here", r.Index)
		}
	}
	return nil
}
