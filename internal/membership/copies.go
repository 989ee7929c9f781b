package membership

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// How copies of a data directory are told apart.
//
// Each process of a node has a name of its own, and the state keeps the one that last had a session.
// The directory keeps it too, with all processes since. So a process whose directory does not know the
// one in the state is of an older copy, or of the original of a newer copy: it has forgotten what that
// one acknowledged and voted for. It must not take part as this node. What then happens hangs on whether
// the other process lives:
//
//   - It does: this one is refused, for good, and the other one is not disturbed.
//   - It does not: the state of this directory is set aside, and the node joins as a new one.
//
// A copy that was made in the life of that very process knows it. If it lacks committed entries that the
// node is known to have stored, it is an older copy all the same; if the process lives, it is refused; else
// nothing can tell the two apart, and the first that gets a session goes on.

// refusal is why a process cannot go on as its node. Its text goes on from "this node's".
type refusal struct {
	Kind refusalKind
	Why  string
}

type refusalKind string

const (
	refusedForeign  refusalKind = "foreign"  // it is of another cluster
	refusedRemoved  refusalKind = "removed"  // the node is no member any more
	refusedCopy     refusalKind = "copy"     // another process of the node lives, and is the one
	refusedOlder    refusalKind = "older"    // another process of the node has had the node's place, and is gone
	refusedSettings refusalKind = "settings" // it is not configured as the others are
	refusedWait     refusalKind = "wait"     // it is not known yet which process is the one
)

// weight tells of two refusals which one counts.
func (k refusalKind) weight() int {
	return slices.Index([]refusalKind{refusedWait, refusedOlder, refusedCopy, refusedForeign, refusedRemoved}, k)
}

// RefusedError is the error of a node that a peer has refused.
type RefusedError struct {
	refusal
	peer string // who says so
}

func (e *RefusedError) Error() string {
	return "the node at " + e.peer + " refuses this node: " + e.Why
}

// Is makes a refusal an errs.Removed if it is one.
func (e *RefusedError) Is(target error) bool {
	return target == errs.Removed && e.Kind == refusedRemoved
}

// life is what is known of a process.
type life int

const (
	lifeUnknown life = iota // its address does not answer, or another node does there
	lifeGoes                // it answers at its address
	lifeEnded               // the port there refuses, or another process of its node answers
)

// lifeOf asks at the address of a process whether it lives.
func (n *Membership) lifeOf(ctx context.Context, id string, p state.Process) (l life, by string) {
	switch {
	case p.Addr == n.Self.Addr && id != n.Self.ID:
		return lifeUnknown, n.Self.ID // this node is there
	case p.Addr == n.Self.Addr && p.Incarnation != n.Self.Incarnation:
		n.Book.End(p.Incarnation)
		return lifeEnded, n.Self.ID
	}
	ctx, cancel := context.WithTimeout(ctx, greetTimeout/2)
	defer cancel()
	by, reply, err := n.Replica.Port.CallAddr(ctx, p.Addr, rpc.Process, nil)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return lifeEnded, ""
	case err != nil || by != id:
		return lifeUnknown, by
	case string(reply) == p.Incarnation:
		return lifeGoes, by
	}
	n.Book.End(p.Incarnation)
	return lifeEnded, by
}

// ServeProcess says which process this is, to whoever asks.
func (n *Membership) ServeProcess(context.Context, string, []byte) ([]byte, error) {
	return []byte(n.Self.Incarnation), nil
}

// examine judges the process of another node that greets. It also reports whether the process before it
// is known to have ended.
func (n *Membership) examine(ctx context.Context, in *Greeting) (no *refusal, ended bool) {
	last, recorded, ok := n.Book.Latest(in.ID)
	if !ok || last.Incarnation == in.Boot {
		return nil, false
	}
	knows := state.ComesAfter(in.Processes, last.Incarnation)
	l, _ := n.lifeOf(ctx, in.ID, last)
	present := n.Store.State().Session(in.ID) != nil
	switch {
	case l == lifeGoes && (recorded || knows):
		return &refusal{refusedCopy, n.copyText(in.ID, last)}, false
	case l == lifeGoes && in.Boot < last.Incarnation:
		return &refusal{refusedWait, "another process of the node " + in.ID + " runs at " + last.Addr + ", with a copy of its data directory; the cluster goes on with the one of the two that gets a session first"}, false
	case recorded && !knows && (l == lifeEnded || !present):
		return &refusal{refusedOlder, n.olderText(in.ID, last)}, l == lifeEnded
	case recorded && !knows:
		return n.undecided(last), false
	}
	stored := n.Replica.StoredBy(in.ID, last.Incarnation)
	switch {
	case in.Last >= stored:
		return nil, l == lifeEnded
	case l == lifeEnded || !present:
		return &refusal{refusedOlder, fmt.Sprintf("its log ends with entry %d, and it has acknowledged entry %d: its data directory was restored from an older copy", in.Last, stored)}, l == lifeEnded
	}
	return n.undecided(last), false
}

// examineTwin judges another process of this very node that greets it.
func (n *Membership) examineTwin(in *Greeting) *refusal {
	last, _ := n.Store.State().Process(n.Self.ID)
	self := state.Process{Incarnation: n.Self.Incarnation, Addr: n.Self.Addr, Time: last.Time}
	switch {
	case last.Incarnation == n.Self.Incarnation, last.Incarnation != in.Boot && slices.Contains(in.Processes, n.Self.Incarnation):
		return &refusal{refusedCopy, n.copyText(n.Self.ID, self)}
	case last.Incarnation == in.Boot, slices.Contains(n.Ident.Identity().Processes, in.Boot):
		return nil // it is this one that has to go
	case in.Boot < n.Self.Incarnation:
		return n.undecided(self)
	}
	return nil
}

func (n *Membership) undecided(last state.Process) *refusal {
	return &refusal{refusedWait, "another process of this node, at " + last.Addr + ", may still run; it is waited for its session to end"}
}

// copyText says that another process is the one, and how to go on.
func (n *Membership) copyText(id string, p state.Process) string {
	since := ""
	if p.Time != 0 {
		since = " (in the cluster since " + time.Unix(0, p.Time).UTC().Format(time.RFC3339) + ")"
	}
	return fmt.Sprintf("its node ID %s is that of %s, which runs at %s%s: one of the two data directories is a copy."+
		" The cluster goes on with that process, and this one takes no part. Give this one an empty directory, and it joins as a new node;"+
		" or, if this is the directory to go on with, stop the process at %s first", id, n.Book.NameOf(id), p.Addr, since, p.Addr)
}

// olderText says that a directory has forgotten what a later process has done.
func (n *Membership) olderText(id string, p state.Process) string {
	return fmt.Sprintf("its data directory is an older copy: it does not know the process of %s that had its place in the cluster since %s, at %s",
		n.Book.NameOf(id), time.Unix(0, p.Time).UTC().Format(time.RFC3339), p.Addr)
}

// IsNewest is asked by the port whether a process of a node may be talked to.
func (n *Membership) IsNewest(id, boot string) error {
	if id == n.Self.ID {
		return nil
	}
	if err := n.Book.IsBarred(boot); err != nil {
		return err
	}
	last, _, ok := n.Book.Latest(id)
	if ok && last.Incarnation != boot && state.StartOf(boot) <= state.StartOf(last.Incarnation) {
		return fmt.Errorf("another process of %s, at %s, has its place in the cluster", n.Book.NameOf(id), last.Addr)
	}
	return nil
}

// MayLead is asked by the port whether a node whose log ends with that entry may be voted for. A log that
// lacks what another node has applied can win only because a voter was rolled back. Nodes greet one
// another again and again as long as there is no leader, so what they say is recent.
func (n *Membership) MayLead(last uint64) error {
	servers := n.Store.State().Servers
	applied, by := n.Book.Furthest(time.Now().Add(-n.Timing.Recent()), func(id string) bool {
		return id != n.Self.ID && slices.Contains(servers, id) && !n.Replica.Port.HungUp(id)
	})
	if applied <= last {
		return nil
	}
	return fmt.Errorf("its log ends with entry %d, and %s has applied entry %d: a leader must have all that any node has applied", last, n.Book.NameOf(by), applied)
}

// refuse notes and tells that a process of a node is refused.
func (n *Membership) refuse(in *Greeting, no *refusal) {
	if no.Kind == refusedWait {
		n.Log.Info("a process of a node has to wait", "node", in.ID, "name", in.Name, "addr", in.Addr, "why", no.Why)
		return
	}
	if n.Book.Bar(in.Boot, errors.New(no.Why)) {
		n.Log.Warn("a process of a node is refused", "node", in.ID, "name", in.Name, "addr", in.Addr, "why", no.Why)
		n.Replica.Port.Recheck()
	}
}

// Meet judges a process of another node of this cluster that has spoken, and notes what it says if it is
// to be believed.
func (n *Membership) Meet(ctx context.Context, in *Greeting) *refusal {
	no, ended := n.examine(ctx, in)
	if no != nil {
		n.refuse(in, no)
		return no
	}
	if ended && n.Replica.Leader() == in.ID {
		// Unless it is this process that was elected, the leader is dead.
		if led := n.Replica.Port.Transport().LedBy(in.ID); led != in.Boot {
			n.Replica.StandForDead(in.ID, led)
		}
	}
	n.Book.Observe(in.Member, in.Boot, in.Applied)
	return nil
}

// superseded returns why this process cannot go on as its node, by what this node itself has applied.
func (n *Membership) superseded(ctx context.Context) error {
	s := n.Store.State()
	last, ok := s.Process(n.Self.ID)
	if !ok || last.Incarnation == n.Self.Incarnation || state.ComesAfter(n.Ident.Identity().Processes, last.Incarnation) {
		return nil
	}
	no := refusal{refusedOlder, n.olderText(n.Self.ID, last)}
	if l, _ := n.lifeOf(ctx, n.Self.ID, last); l == lifeGoes {
		no = refusal{refusedCopy, n.copyText(n.Self.ID, last)}
	} else if l == lifeUnknown && s.Session(n.Self.ID) != nil {
		return nil // it is asked again
	}
	return &RefusedError{no, n.Self.Addr}
}

// mayOpen is asked of the leader whether a process may have a session opened. It may not as long as the
// process that has one may live: that process would lose all that it holds.
func (n *Membership) mayOpen(ctx context.Context, id, boot string, processes []string) error {
	s := n.Store.State()
	last, ok := s.Process(id)
	if !ok || last.Incarnation == boot {
		return nil
	}
	l, _ := n.lifeOf(ctx, id, last)
	switch {
	case l == lifeGoes:
		return &rpc.SupersededError{Why: n.copyText(id, last)}
	case !state.ComesAfter(processes, last.Incarnation):
		return &rpc.SupersededError{Why: n.olderText(id, last)}
	case l == lifeUnknown && s.Session(id) != nil:
		return fmt.Errorf("the process that this node had before, at %s, may still run; its session has to end first", last.Addr)
	}
	return nil
}

// worst returns the refusal that counts.
func worst(a, b *RefusedError) *RefusedError {
	if a == nil || b != nil && cmp.Compare(b.Kind.weight(), a.Kind.weight()) > 0 {
		return b
	}
	return a
}

// Shorten returns the processes that a directory keeps: the first, and the newest.
func Shorten(processes []string) []string {
	if len(processes) <= state.MaxProcesses {
		return processes
	}
	return append(processes[:1:1], processes[len(processes)-state.MaxProcesses+1:]...)
}
