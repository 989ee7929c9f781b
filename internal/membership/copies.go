package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Copies tells copies of a data directory apart: it decides which process of a node has the node's
// place in the cluster.
//
// Each process has an incarnation, and the state keeps that of the process that last had a
// session. The directory keeps it too, with all processes since. So a process whose directory
// does not know the one in the state belongs to an older copy, or to the original of a newer
// copy. It has forgotten what the other one acknowledged and voted for, and must not take part as
// this node. What follows depends on whether the other process lives:
//
//   - It lives: this one is refused for good, and the other one is not disturbed.
//   - It has ended: the state of this directory is set aside, and the node joins as a new one.
//
// A copy that was made while that very process lived does know it. If it lacks committed entries
// that the node is known to have stored, it is an older copy all the same. If the process lives,
// the copy is refused. Else nothing can tell the two apart, and the first that gets a session
// goes on.
type Copies struct {
	timing  timing.Timing
	log     *slog.Logger
	self    *self.Self
	ident   *IdentityFile
	store   *applied.Store
	table   *peers.Table
	replica *replica.Replica
}

// life is what is known of a process.
type life int

const (
	lifeUnknown life = iota // its address does not answer, or another node answers there
	lifeGoes                // it answers at its address
	lifeEnded               // the port there refuses, or another process of its node answers
)

// lifeOf asks at the address of a process whether it lives.
func (c *Copies) lifeOf(ctx context.Context, id string, p state.Process) life {
	switch {
	case p.Addr == c.self.Addr && id != c.self.ID:
		return lifeUnknown // this node is there
	case p.Addr == c.self.Addr && p.Incarnation != c.self.Incarnation:
		c.table.End(p.Incarnation)
		return lifeEnded
	}
	ctx, cancel := context.WithTimeout(ctx, greetTimeout/2)
	defer cancel()
	by, answer, err := rpc.CallAddr(ctx, c.replica.Port, p.Addr, rpc.Process, rpc.Empty{}, DecodeProcessName)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return lifeEnded
	case err != nil || by != id:
		return lifeUnknown
	case answer.Incarnation == p.Incarnation:
		return lifeGoes
	}
	c.table.End(p.Incarnation)
	return lifeEnded
}

// serveProcess answers which process this is.
func (c *Copies) serveProcess(context.Context, string, rpc.Empty) (ProcessName, error) {
	return ProcessName{c.self.Incarnation}, nil
}

// Meet judges a process of another node of this cluster that has spoken. If the process can go on
// as its node, Meet has the peer table observe it and returns nil.
func (c *Copies) Meet(ctx context.Context, in *Greeting) *Refusal {
	no, ended := c.examine(ctx, in)
	if no != nil {
		c.refuse(in, no)
		return no
	}
	if ended && c.replica.Leader() == in.ID {
		// The process that led is dead, unless the one that speaks was elected since.
		if led := c.replica.Port.Transport().LedBy(in.ID); led != in.Incarnation {
			c.replica.StandForDead(in.ID, led)
		}
	}
	c.table.Observe(in.Member, in.process())
	return nil
}

// examine judges the process of another node that greets. It also reports whether the process
// before it is known to have ended.
func (c *Copies) examine(ctx context.Context, in *Greeting) (no *Refusal, ended bool) {
	last, recorded, ok := c.table.Latest(in.ID)
	if !ok || last.Incarnation == in.Incarnation {
		return nil, false
	}
	q := claim{
		recorded: recorded,
		knows:    state.ComesAfter(in.Processes, last.Incarnation),
		earlier:  in.Incarnation < last.Incarnation,
		life:     c.lifeOf(ctx, in.ID, last),
		present:  c.store.State().Session(in.ID) != nil,
		last:     in.Last,
		stored:   c.replica.StoredBy(in.ID, last.Incarnation),
	}
	ended = q.life == lifeEnded
	switch q.judge() {
	case refusedCopy:
		return &Refusal{refusedCopy, c.copyText(in.ID, last)}, ended
	case refusedOlder:
		if q.recorded && !q.knows {
			return &Refusal{refusedOlder, c.olderText(in.ID, last)}, ended
		}
		return &Refusal{refusedOlder, fmt.Sprintf(
			"its log ends with entry %d, and it has acknowledged entry %d: its data directory was restored from an older copy",
			q.last, q.stored)}, ended
	case refusedWait:
		if q.life == lifeGoes && q.earlier {
			return &Refusal{refusedWait, "another process of the node " + in.ID + " runs at " + last.Addr +
				", with a copy of its data directory; the cluster goes on with the one of the two that gets a session first"}, ended
		}
		return undecided(last), ended
	}
	return nil, ended
}

// claim is what is known of a process that claims its node's place, and of the last process that
// had it.
type claim struct {
	recorded bool   // the last process has had a session
	knows    bool   // the directory of this process knows the last one, or comes after it
	earlier  bool   // this process started before the last one
	life     life   // of the last process
	present  bool   // the node has a session
	last     uint64 // index of the newest entry in the log of this process
	stored   uint64 // an entry that the last process had on its disk
}

// judge returns the kind of the refusal, empty if the process can go on as its node.
func (q claim) judge() string {
	gone := q.life == lifeEnded || !q.present
	switch {
	case q.life == lifeGoes && (q.recorded || q.knows):
		return refusedCopy
	case q.life == lifeGoes && q.earlier:
		return refusedWait
	case q.recorded && !q.knows && gone:
		return refusedOlder
	case q.recorded && !q.knows:
		return refusedWait
	case q.last >= q.stored:
		return ""
	case gone:
		return refusedOlder
	}
	return refusedWait
}

// meetTwin judges another process of this very node that greets it. Nil: this process is the one
// that has to go.
func (c *Copies) meetTwin(in *Greeting) *Refusal {
	no := c.examineTwin(in)
	if no != nil {
		c.refuse(in, no)
	}
	return no
}

func (c *Copies) examineTwin(in *Greeting) *Refusal {
	last, _ := c.store.State().Process(c.self.ID)
	own := state.Process{Incarnation: c.self.Incarnation, Addr: c.self.Addr, Time: last.Time}
	switch {
	case last.Incarnation == own.Incarnation,
		last.Incarnation != in.Incarnation && slices.Contains(in.Processes, own.Incarnation):
		return &Refusal{refusedCopy, c.copyText(c.self.ID, own)}
	case last.Incarnation == in.Incarnation, slices.Contains(c.ident.Identity().Processes, in.Incarnation):
		return nil
	case in.Incarnation < own.Incarnation:
		return undecided(own)
	}
	return nil
}

// undecided makes a process wait until it is known what became of the last one.
func undecided(last state.Process) *Refusal {
	return &Refusal{refusedWait, "another process of this node, at " + last.Addr + ", may still run; waiting for its session to end"}
}

// copyText says that another process has the node's place, and what to do.
func (c *Copies) copyText(id string, p state.Process) string {
	since := ""
	if p.Time != 0 {
		since = " (in the cluster since " + time.Unix(0, p.Time).UTC().Format(time.RFC3339) + ")"
	}
	return fmt.Sprintf("its node ID %s is that of %s, which runs at %s%s: one of the two data directories is a copy."+
		" The cluster goes on with that process, and this one takes no part. Give this one an empty directory, and it joins as a new node;"+
		" or, if this is the directory to go on with, stop the process at %s first", id, c.table.NameOf(id), p.Addr, since, p.Addr)
}

// olderText says that a directory has forgotten what a later process has done.
func (c *Copies) olderText(id string, p state.Process) string {
	return fmt.Sprintf("its data directory is an older copy: it does not know the process of %s that had its place in the cluster since %s, at %s",
		c.table.NameOf(id), time.Unix(0, p.Time).UTC().Format(time.RFC3339), p.Addr)
}

// refuse logs that a process of a node is refused, and keeps this node from talking to it.
func (c *Copies) refuse(in *Greeting, no *Refusal) {
	if no.Kind == refusedWait {
		c.log.Info("a process of a node has to wait", "peer", in.ID, "name", in.Name, "addr", in.Addr, "why", no.Why)
		return
	}
	if c.table.Bar(in.Incarnation, errors.New(no.Why)) {
		c.log.Warn("a process of a node is refused", "event", event.PeerRefused, "name", in.Name, "peer", in.ID, "addr", in.Addr, "why", no.Why)
		c.replica.Port.Recheck()
	}
}

// heeds reports whether the refusal of a peer counts. A node of another cluster that was started
// here by mistake harms nobody but itself. A process that the cluster has given a session has the
// node's place, whatever a peer that was away knew before.
func (c *Copies) heeds(g *Greeting) bool {
	own := c.ident.Identity()
	switch last, _ := c.store.State().Process(c.self.ID); {
	case own.Cluster == "":
		return true
	case g.Cluster != own.Cluster:
		return g.Refused.Kind == refusedForeign && len(own.Peers) < 2
	case own.isOfOther(g):
		return g.Refused.Kind == refusedSuperseded
	case g.Refused.Kind == refusedRemoved:
		return true
	default:
		return last.Incarnation != c.self.Incarnation
	}
}

// IsNewest returns why this node must not talk to a process of a node, nil if it may.
func (c *Copies) IsNewest(id, incarnation string) error {
	if id == c.self.ID {
		return nil
	}
	if err := c.table.IsBarred(incarnation); err != nil {
		return err
	}
	last, _, ok := c.table.Latest(id)
	if ok && last.Incarnation != incarnation && state.StartOf(incarnation) <= state.StartOf(last.Incarnation) {
		return fmt.Errorf("another process of %s, at %s, has its place in the cluster", c.table.NameOf(id), last.Addr)
	}
	return nil
}

// MayLead returns why this node must not vote for a node whose log ends with the entry last, nil if
// it may. A log that lacks what another node has applied can win an election only if a voter was
// rolled back. Nodes greet one another as long as there is no leader, so what they say is recent.
func (c *Copies) MayLead(last uint64) error {
	servers := c.store.State().Servers
	applied, by := c.table.Furthest(time.Now().Add(-c.timing.Recent()), func(id string) bool {
		return id != c.self.ID && slices.Contains(servers, id) && !c.replica.Port.BelievedDead(id)
	})
	if applied <= last {
		return nil
	}
	return fmt.Errorf("its log ends with entry %d, and %s has applied entry %d: a leader must have all that any node has applied",
		last, c.table.NameOf(by), applied)
}

// superseded returns why this process cannot go on as its node, by what this node itself has
// applied.
func (c *Copies) superseded(ctx context.Context) error {
	s := c.store.State()
	last, ok := s.Process(c.self.ID)
	if !ok || last.Incarnation == c.self.Incarnation || state.ComesAfter(c.ident.Identity().Processes, last.Incarnation) {
		return nil
	}
	no := Refusal{refusedOlder, c.olderText(c.self.ID, last)}
	if l := c.lifeOf(ctx, c.self.ID, last); l == lifeGoes {
		no = Refusal{refusedCopy, c.copyText(c.self.ID, last)}
	} else if l == lifeUnknown && s.Session(c.self.ID) != nil {
		return nil // the node asks again
	}
	return &RefusedError{no, c.self.Addr}
}

// mayOpen returns why a leader must not open a session for a process of a node, nil if it may. As
// long as the process that has a session may live, no other one gets one: the first would lose all
// that it holds.
func (c *Copies) mayOpen(ctx context.Context, id, incarnation string, processes []string) error {
	s := c.store.State()
	last, ok := s.Process(id)
	if !ok || last.Incarnation == incarnation {
		return nil
	}
	l := c.lifeOf(ctx, id, last)
	switch {
	case l == lifeGoes:
		return &rpc.SupersededError{Why: c.copyText(id, last)}
	case !state.ComesAfter(processes, last.Incarnation):
		return &rpc.SupersededError{Why: c.olderText(id, last)}
	case l == lifeUnknown && s.Session(id) != nil:
		return fmt.Errorf("the process that this node had before, at %s, may still run; its session has to end first", last.Addr)
	}
	return nil
}

// GiveUp ends the part that this node takes in the cluster, for the reason err. If its directory is
// an older copy, or belongs to an older incarnation, the next start sets its state aside.
func (c *Copies) GiveUp(err error) {
	if no := new(RefusedError); errors.As(err, &no) && no.setsAside() && c.replica.Dir != nil {
		aside := durable.AsideName(time.Now())
		saved := c.ident.Save(func(id *Identity) {
			if id.Aside != "" { // several peers have refused this node at once
				aside = id.Aside
			}
			id.Aside = aside
		})
		if saved != nil {
			err = errors.Join(err, saved)
		} else {
			err = fmt.Errorf("%w; start it again: its state is then set aside in %s, and it joins as a new node",
				err, filepath.Join(c.replica.Dir.Path(), aside))
		}
	}
	c.replica.Fail(err)
}
