package upgrade

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// again is how soon a Raiser tries again what has failed.
const again = time.Second

// Config is what a Raiser needs of the node around it. All fields are set.
type Config struct {
	Supports uint64                 // the newest cluster version that this program supports
	Log      *slog.Logger           // gets that the version was raised
	Life     *lifecycle.Life        // tells when members come and go
	Store    *applied.Store         // what this node has applied
	Peers    *peers.Table           // what the processes of members support
	Replica  *replica.Replica       // proposes
	Members  *membership.Membership // asks a member that has not said what it supports
}

// Raiser raises the cluster version while this node leads. Make one with New. Its methods are safe
// for concurrent use.
type Raiser struct {
	cfg Config

	mu   sync.Mutex
	seen map[string]seen // by node ID; nil: this node does not lead
}

// seen is since when a leader has seen a process that supports the next version.
type seen struct {
	incarnation string
	at          time.Time
}

// New returns a Raiser. It does nothing before its methods are called.
func New(c Config) *Raiser { return &Raiser{cfg: c} }

// Run raises the version when that is due, for one term of this node as leader. It returns when the
// term is over, or when the cluster has the newest version that this program supports.
//
// It looks when a member comes or goes, or says something new of itself, and when the rest of all
// of them is over. In between it sleeps.
func (r *Raiser) Run(l *replica.Leadership) {
	r.begin()
	defer r.end()
	for l.Ctx.Err() == nil {
		sessions, said := r.cfg.Life.Sessions.Wait(), r.cfg.Peers.Changed()
		s := r.cfg.Store.State()
		if s.Version >= r.cfg.Supports {
			return
		}
		v := r.View()
		left, free := v.left(time.Now())
		var due <-chan time.Time
		switch {
		case free && (left <= 0 || s.IsAsFormed()):
			err := r.raise(l.Ctx, v)
			if err == nil {
				continue
			}
			r.cfg.Log.Debug("the cluster version was not raised; will try again", "err", err)
			due = time.After(again)
		case free:
			due = time.After(left)
		case r.ask(l.Ctx, v):
			due = time.After(again)
		}
		select {
		case <-sessions:
		case <-said:
		case <-due:
		case <-l.Ctx.Done():
		}
	}
}

func (r *Raiser) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = make(map[string]seen)
}

func (r *Raiser) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = nil
}

// View returns what this node sees of the way to the next version.
func (r *Raiser) View() View {
	s := r.cfg.Store.State()
	v := View{Version: s.Version}
	for _, id := range s.Servers {
		m := Member{ID: id, Name: r.cfg.Peers.NameOf(id)}
		if ses := s.Session(id); ses != nil {
			m.Session, m.Supports = ses.Number, r.cfg.Peers.Supports(id, ses.Incarnation)
			m.Since = r.since(id, ses.Incarnation, m.Supports > s.Version)
		}
		v.Members = append(v.Members, m)
	}
	r.keep(s.Servers)
	slices.SortFunc(v.Members, func(a, b Member) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID)) })
	return v
}

// since returns since when this leader has seen a process that supports the next version. It is
// zero if the process does not, or if this node does not lead.
func (r *Raiser) since(id, incarnation string, supports bool) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil || !supports {
		return time.Time{}
	}
	if r.seen[id].incarnation != incarnation {
		r.seen[id] = seen{incarnation, time.Now()}
	}
	return r.seen[id].at
}

// keep forgets all but the members.
func (r *Raiser) keep(members []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.seen {
		if !slices.Contains(members, id) {
			delete(r.seen, id)
		}
	}
}

// ask greets the members that have not said what they support. It reports whether there were any:
// nothing else would make them say it.
func (r *Raiser) ask(ctx context.Context, v View) bool {
	silent := slices.ContainsFunc(v.Members, func(m Member) bool { return m.Session != 0 && m.Supports == 0 })
	if silent {
		r.cfg.Members.Greet(ctx)
	}
	return silent
}

// raise raises the version by one. Nobody may be in the way.
func (r *Raiser) raise(ctx context.Context, v View) error {
	a, err := r.cfg.Replica.Writes.Do(ctx, state.Command{Change: v.change()})
	switch {
	case err != nil:
		return err
	case a.Code != state.CodeOK:
		return fmt.Errorf("the members are not those that they were: %v", a.Code)
	}
	r.cfg.Log.Info("the cluster version was raised: every node supports it", "version", v.Version+1)
	return nil
}

// Raise raises the version as far as every member supports it, for an operator, on the leader. It
// returns what it sees then: if a member is in the way of a version that others support, the caller
// says so.
func (r *Raiser) Raise(ctx context.Context) (View, error) {
	for {
		v := r.View()
		if r.ask(ctx, v) {
			v = r.View()
		}
		if v.Version >= r.cfg.Supports || len(v.Members) == 0 || len(v.Blocked()) > 0 {
			return v, nil
		}
		if err := r.raise(ctx, v); err != nil {
			return v, err
		}
	}
}
