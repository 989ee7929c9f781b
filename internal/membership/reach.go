package membership

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/self"
)

// PeerStatus is a peer with which something is wrong.
type PeerStatus struct {
	ID, Name string    // empty: not known, for nobody has answered at Addr yet
	Addr     string    // that this node dials
	Err      string    // why the peer cannot be reached, since Since; empty: it can
	Since    time.Time // zero without Err
	Stopped  bool      // the peer said that it was shutting down
	Differs  []string  // settings that this node has otherwise, in words
}

// describe names a peer and says what is wrong.
func (p *PeerStatus) describe() string {
	who := p.Addr
	if p.Name != "" {
		who = p.Name + " at " + p.Addr
	}
	return who + ": " + p.Err
}

// unanswered is what the last round of greetings could not reach, by address. The zero unanswered
// is ready.
type unanswered struct {
	mu sync.Mutex
	m  map[string]PeerStatus
}

// replace takes the errors of one round.
func (u *unanswered) replace(errs map[string]error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.m
	u.m = make(map[string]PeerStatus, len(errs))
	for addr, err := range errs {
		p, ok := old[addr]
		if !ok {
			p = PeerStatus{Addr: addr, Since: time.Now()}
		}
		p.Err = Explain(err)
		u.m[addr] = p
	}
}

func (u *unanswered) list() []PeerStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Collect(maps.Values(u.m))
}

// Reach says which peers cannot be reached or are configured otherwise, and why.
type Reach struct {
	life      *lifecycle.Life
	self      *self.Self
	table     *peers.Table
	replica   *replica.Replica
	greetings *Greetings
}

// PeerStatus returns the peers with which something is wrong.
func (r *Reach) PeerStatus() []PeerStatus {
	if r.replica.Port == nil {
		return nil
	}
	var out []PeerStatus
	known := make(map[string]bool) // addresses
	differs := r.greetings.peerSettings.differences(r.greetings.settings())
	for id, m := range r.table.All() {
		since, err := r.replica.Port.LastError(id)
		if id == r.self.ID || r.inRaft() && !r.replica.IsServer(id) || err == nil && len(differs[id]) == 0 {
			continue
		}
		p := PeerStatus{ID: id, Name: m.Name, Addr: m.Addr, Differs: differs[id]}
		if err != nil {
			p.Err, p.Since, p.Stopped = Explain(err), since, r.table.IsLeaving(id)
		}
		known[m.Addr] = true
		out = append(out, p)
	}
	if !r.inRaft() || r.replica.Leader() == "" {
		for _, p := range r.greetings.unanswered.list() {
			if !known[p.Addr] {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return strings.Compare(a.Name+"\x00"+a.Addr, b.Name+"\x00"+b.Addr) })
	return out
}

func (r *Reach) inRaft() bool { return r.replica.Raft.Load() != nil }

// Unreachable lists the peers that cannot be reached and did not say that they were shutting down,
// with the reasons. It is empty if there are none.
func (r *Reach) Unreachable() string {
	var all []string
	for _, p := range r.PeerStatus() {
		if p.Err != "" && !p.Stopped {
			all = append(all, p.describe())
		}
	}
	return strings.Join(all, "; ")
}

// Misconfigured lists the nodes whose settings differ from this one's. It is empty if there are
// none.
func (r *Reach) Misconfigured() string {
	var all []string
	for _, p := range r.PeerStatus() {
		for _, d := range p.Differs {
			all = append(all, p.Name+" at "+p.Addr+": "+d)
		}
	}
	return strings.Join(all, "; ")
}

// WhyNot says what a node that is not ready waits for.
func (r *Reach) WhyNot() string {
	if s := r.life.Setback.Load(); s != nil {
		return s.Err.Error()
	}
	why := "the cluster has no leader that it can reach"
	if !r.inRaft() {
		why = "it has found no cluster yet"
		if w := r.life.WaitsFor.Load(); w != nil {
			why = *w
		}
	}
	if all := r.Unreachable(); all != "" {
		why += "; " + all
	}
	return why
}
