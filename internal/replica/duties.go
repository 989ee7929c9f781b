package replica

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// duties notices when this node begins and ceases to lead, and runs a leader's duties meanwhile.
type duties struct {
	timing  timing.Timing
	secrets *secrets.Set
	log     *slog.Logger
	store   *applied.Store
	group   *Group
	leads   *LeaderState
	outage  *Outage
	deaths  *Deaths
	leaders *leaders

	clusterID func() string
	perform   func(*Leadership) // does the other parts' duties until the end of the term
	wakeLease func()
}

// watch runs a leader's duties while this node leads, and wakes those who wait for a leader, until
// ctx ends. raft's observations only wake it, because raft blocks while it delivers them and may
// drop some.
func (d *duties) watch(ctx context.Context, r *Instance) {
	woken := make(chan struct{}, 1)
	observer := raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if now, ok := o.Data.(raft.LeaderObservation); ok {
			d.leaders.observe(string(now.LeaderID))
		}
		select {
		case woken <- struct{}{}:
		default:
		}
		return false
	})
	r.RegisterObserver(observer)
	defer d.leaders.pause()
	defer r.DeregisterObserver(observer)
	if _, id := r.LeaderWithID(); id != "" {
		d.leaders.observe(string(id))
	}

	transport := d.group.port.Transport
	beats := heartbeats{timing: d.timing, log: d.log, group: d.group, raft: r}
	var l *Leadership // whose duties run
	led := uint64(0)  // the last term of this node as leader that is over
	var run sync.WaitGroup
	end := func() {
		if l != nil {
			l.stop()
			run.Wait()
			beats.await()
			transport().Release(l.Term)
			led, l = l.Term, nil
		}
	}
	defer end()
	before := "" // the leader before this node
	for {
		term, leads := r.CurrentTerm(), r.State() == raft.Leader
		if leader := d.group.Leader(); leader != "" && leader != d.group.self.ID {
			before = leader
			d.prepare(leader)
		}
		if l != nil && (!leads || l.Term != term) {
			end()
		}
		if leads && l == nil {
			l = d.begin(ctx, r, term, before)
			beats.sendAlone()
			begun := l
			run.Go(func() { d.lead(begun) })
		}
		d.group.life.Changed.Notify()
		var due <-chan struct{}
		if l != nil {
			due = l.beats
		}
		for looking := false; !looking; {
			select {
			case <-woken:
				looking = true
			case leads := <-r.LeaderCh():
				if !leads { // raft has told its replication to stop, and does not repeat calls that end
					transport().Release(led)
				}
				looking = true
			case <-due:
				beats.sendAlong()
			case <-ctx.Done():
				return
			}
		}
	}
}

// prepare keeps connections to the other voters ready for an election in place of the leader.
func (d *duties) prepare(leader string) {
	for _, id := range d.store.State().Voters {
		if id != leader && id != d.group.self.ID {
			d.group.port.Transport().Prepare(id)
		}
	}
}

// begin returns a new term of this node as leader.
func (d *duties) begin(ctx context.Context, r *Instance, term uint64, before string) *Leadership {
	l := &Leadership{
		Raft: r, Term: term, Since: time.Now(),
		timing: d.timing, group: d.group, store: d.store, wakeLease: d.wakeLease, beats: make(chan struct{}, 1),
		offered: make(map[raft.ServerID]bool), expelled: make(map[string]bool),
	}
	l.Ctx, l.stop = context.WithCancel(ctx)
	l.Acks = &Acks{
		group: d.group, timing: d.timing, ctx: l.Ctx, raft: r.Raft, term: term, since: l.Since, before: before, heard: r.LastContact(),
		applied: make(map[string]uint64), wanted: make(map[string]uint64), asking: make(map[string]bool), stuck: make(map[string]time.Time),
	}
	return l
}

// lead does a leader's duties for one term.
func (d *duties) lead(l *Leadership) {
	if !d.startTerm(l) {
		return
	}
	d.leads.Leading.Store(l)
	d.group.life.Changed.Notify()
	d.wakeLease()
	d.log.Info("this node leads", "term", l.Term)
	defer func() {
		d.leads.Leading.Store(nil)
		d.group.life.Changed.Notify()
		d.log.Info("this node leads no more", "term", l.Term)
	}()
	d.perform(l)
}

// startTerm has an entry of this term applied. Only then is everything applied here that was
// acknowledged before. In a new cluster the entry brings the keyring.
//
// The ends of sessions by death notices are proposed together with that entry: the holder of a role
// may have led, and others wait for the role. A proposal of any other command would have to wait
// until the entry is applied, because it may rest on a state that is not the newest. These do not
// rest on the state of this node. A death notice says that the process of one session is dead and
// has left nothing that can be seen. That was true when the guard sent it, it stays true, and no
// other session has the number. The state machine looks at the number when the entry is applied,
// which is after all entries of earlier terms: so it ends this session or does nothing. A port that
// refuses is evidence enough to stand for election, and never to end a session: what is proposed
// here is only what a notice has been given for.
func (d *duties) startTerm(l *Leadership) bool {
	for l.Ctx.Err() == nil {
		s := d.store.State()
		var entry []byte
		var err error
		var dead []state.EndByDeathNotice
		if s.Keys == nil {
			entry, err = d.newKeyring()
		} else {
			entry = state.SealCommand(s.Keys, &state.Command{Node: d.group.self.ID, Change: state.StartTerm{}})
			dead = d.deaths.all()
		}
		if err != nil {
			d.outage.Fail(err)
			return false
		}
		first := l.Raft.LastIndex() // of this term: raft itself begins it with an entry
		for _, end := range dead {
			c := state.Command{Node: d.group.self.ID, Time: time.Now().UnixNano(), Change: end}
			l.Raft.Apply(state.SealCommand(s.Keys, &c), d.timing.Attempt())
		}
		err = l.Apply(l.Ctx, entry, func(s *state.State) bool { return s.Index > first })
		if err != nil || d.store.State().Keys == nil {
			continue
		}
		if len(dead) > 0 { // raft would tell the next holders only with the next entry
			l.Acks.want(d.store.State().Index, l.Acks.Gone)
		}
		return true
	}
	return false
}

// newKeyring returns the first command of a new cluster.
func (d *duties) newKeyring() ([]byte, error) {
	wrapped, err := seal.NewKeyring().Wrap(d.secrets.Accepted()...)
	if err != nil {
		return nil, err
	}
	return state.Keyring{Cluster: d.clusterID(), Wrapped: wrapped}.Entry(), nil
}
