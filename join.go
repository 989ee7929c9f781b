package flotilla

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

const (
	greetTimeout = time.Second
	seekShortest = 50 * time.Millisecond // between rounds of looking for a cluster, at first
	seekLongest  = time.Second

	rememberAgain = 5 * time.Second // after a failure to save the members' addresses
)

// membershipConfig is what a membership needs of the node around it.
type membershipConfig struct {
	peers      func(context.Context) ([]string, error) // finds addresses of nodes; nil: nobody
	expect     int                                     // how many nodes form a new cluster together
	removeDead time.Duration                           // see Config of the root package
	timing     timing.Timing
	log        *slog.Logger
	life       *lifecycle.Life
	self       *self.Self
	ident      *identityFile
	store      *applied.Store
	book       *peers.Table
	port       *wire.Port
	replica    *replica.Replica
	keeper     *lease.Manager
	up         membershipUp
}

// membershipUp is what a membership asks of the parts above it.
type membershipUp struct {
	ownSettings func() settings           // what this node tells others of its configuration
	seen        func(session uint64) bool // something public is held by a session yet, or kept without it
}

// membership leads a node into its cluster, keeps it there, and decides with whom it is in one.
type membership struct {
	membershipConfig
	unanswered unanswered
	settings   peerSettings
	greeted    notify.Signal // a peer has said hello
	forming    forming       // how long it has been waiting for others to form a cluster
}

func newMembership(cfg membershipConfig) *membership {
	n := &membership{membershipConfig: cfg}
	n.forming.heard()
	return n
}

// round is what one round of greetings has found.
type round struct {
	cluster string              // the proposed one that this node stood by before it greeted anybody
	greeted map[string]greeting // by node ID, without this node
	at      map[string]string   // who answered, by address
	silent  []string            // addresses that neither answered nor refused
	unsafe  []string            // nodes that cannot be in one cluster with this one as they are configured, and why
	err     error               // why this node cannot go on
	wait    error               // why it cannot yet
}

// greet asks every address that might be a node's.
func (n *membership) greet(ctx context.Context) round {
	r := round{greeted: make(map[string]greeting), at: make(map[string]string)}
	if f := n.ident.identity().Formation; f != nil {
		r.cluster = f.Cluster
	}
	addrs, failures := make(map[string]bool), make(map[string]error)
	defer func() { n.unanswered.replace(failures) }()
	if n.peers != nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		found, err := n.peers(ctx)
		cancel()
		if err != nil && ctx.Err() == nil {
			n.log.Debug("looking for peers failed; it is tried again", "err", err)
			failures["the peers themselves"] = err
			r.silent = append(r.silent, "the peers that were not found")
		}
		for _, a := range found {
			addrs[a] = true
		}
	}
	for id, m := range n.book.All() {
		if id != n.self.ID {
			addrs[m.Addr] = true
		}
	}
	delete(addrs, n.self.Addr)

	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	hello := n.greeting()
	own := hello.Settings
	body, err := json.Marshal(hello)
	if err != nil {
		r.err = err
		return r
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var refused *refusedError
	for addr := range addrs {
		wg.Go(func() {
			id, reply, err := n.replica.Port.CallAddr(ctx, addr, rpc.Hello, body)
			var g greeting
			if err == nil {
				err = json.Unmarshal(reply, &g)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				n.log.Debug("a peer does not answer", "addr", addr, "err", err)
				if !errors.Is(err, syscall.ECONNREFUSED) {
					r.silent = append(r.silent, addr)
				}
				failures[addr] = err
			case id == n.self.ID && g.Boot == n.self.Incarnation: // an address of our own
			case id != g.ID:
				n.log.Warn("a peer says that it is another than it proved to be", "addr", addr)
			default:
				r.at[addr] = id
				n.settings.hear(id, g.Settings)
				if why := g.Settings.unsafe(own); why != "" {
					r.unsafe = append(r.unsafe, fmt.Sprintf("%s at %s: %s", g.Name, g.Addr, why))
				} else if id != n.self.ID {
					r.greeted[id] = g
				}
				if g.Refused != nil && g.Refused.Kind == refusedSettings {
					r.err = &errs.ConfigError{Field: timingSetting, Reason: "the node at " + g.Addr + " refuses this node: " + g.Refused.Why}
				} else if g.Refused != nil && n.heeds(&g) {
					refused = worst(refused, &refusedError{*g.Refused, g.Addr})
				}
			}
		})
	}
	wg.Wait()
	if refused != nil && refused.Kind == refusedWait {
		r.wait = refused
	} else if refused != nil {
		r.err = refused
	}
	cluster := n.ident.clusterID()
	for id, g := range maps.Clone(r.greeted) {
		wg.Go(func() {
			if cluster != "" && g.Cluster != "" && g.Cluster != cluster {
				n.book.Learn(g.Member)
				return
			}
			if n.meet(ctx, &g) != nil {
				mu.Lock()
				defer mu.Unlock()
				delete(r.greeted, id)
				return
			}
			for _, m := range g.Members {
				if m.ID != n.self.ID {
					n.book.Learn(m)
				}
			}
		})
	}
	wg.Wait()
	return r
}

// outvoted returns why this node, a member, does not start raft: some members have a Timing that does not go with its own, and
// those who have the same are no majority. Those who are ready refuse it besides.
func (n *membership) outvoted(r *round) error {
	if members := len(n.ident.identity().Peers); len(r.unsafe) > 0 && len(r.greeted)+1 <= members/2 {
		return errors.New("the members are not configured alike, and this one is not of their majority")
	}
	return nil
}

// heeds reports whether the refusal of a peer counts. A node of another cluster that was started here by
// mistake harms nobody but itself. A process that the cluster has given a session is the one, whatever a
// peer that was away may have known before.
func (n *membership) heeds(g *greeting) bool {
	own := n.ident.identity()
	switch last, _ := n.store.State().Process(n.self.ID); {
	case own.Cluster == "":
		return true
	case g.Cluster != own.Cluster:
		return g.Refused.Kind == refusedForeign && len(own.Peers) < 2
	case g.Refused.Kind == refusedRemoved:
		return true
	default:
		return last.Incarnation != n.self.Incarnation
	}
}

// enter makes this node run raft: again if it is a member, else when it has found a cluster or formed one.
func (n *membership) enter(ctx context.Context) error {
	n.forming.since = time.Now()
	wait := seekShortest
	for {
		news := n.greeted.Wait()
		r := n.greet(ctx)
		if r.err != nil {
			return r.err
		}
		var done bool
		err := r.wait
		switch member := n.ident.identity().Member; {
		case err != nil: // the cluster has yet to decide which process is the one
		case !member:
			done, err = n.tryEnter(ctx, &r)
		default:
			if err = n.outvoted(&r); err == nil {
				if err := n.replica.StartRaft(); err != nil {
					n.replica.Interrupt(err)
				}
				return nil
			}
		}
		if done && err != nil && replica.MayPass(err) { // the disk's: nothing has come of it, or all but raft's start
			if done = n.ident.identity().Member; done {
				n.replica.Interrupt(err)
				return nil
			}
			err = n.replica.Explain(err)
		}
		if done || ctx.Err() != nil {
			return err
		}
		if err != nil {
			why := strings.Join(append(r.unsafe, err.Error()), "; ")
			if old := n.life.WaitsFor.Swap(&why); old == nil || *old != why {
				n.log.Info("not in a cluster yet", "why", why)
			}
		}
		select {
		case <-news:
			wait = seekShortest
		case <-time.After(wait):
			wait = min(2*wait, seekLongest)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryEnter does what one round of greetings allows. An error without done is only for the log.
func (n *membership) tryEnter(ctx context.Context, r *round) (done bool, err error) {
	f := n.ident.identity().Formation
	for _, g := range r.greeted {
		if g.InRaft && g.Cluster != "" && slices.Contains(g.Committed, n.self.ID) && (f == nil || f.Cluster == g.Cluster) {
			return n.adopt(g.Cluster, g.Members) // let in before
		}
	}
	if f != nil {
		return n.pursue(ctx, r, *f)
	}
	found := ""
	for _, g := range r.greeted {
		if g.Cluster != "" && found != "" && g.Cluster != found {
			return false, fmt.Errorf("the peers belong to two clusters, %s and %s; give this node the addresses of one", slogbridge.Short(found), slogbridge.Short(g.Cluster))
		}
		found = max(found, g.Cluster)
	}
	for _, g := range r.greeted {
		if !g.InRaft || len(g.Servers) == 0 {
			continue
		}
		leader := g.Leader
		if leader == "" {
			return false, fmt.Errorf("the cluster of the node at %s has no leader", g.Addr)
		}
		ctx, cancel := context.WithTimeout(ctx, 2*n.replica.AttemptTimeout()) // the leader takes one at most
		in, err := rpc.Call[joining](ctx, n.replica.Port, leader, rpc.Join, n.greeting())
		cancel()
		if err != nil {
			return false, fmt.Errorf("joining: %w", err)
		}
		return n.adopt(in.Cluster, in.Members)
	}
	if found != "" {
		return false, fmt.Errorf("the nodes of the cluster %s are not up yet", slogbridge.Short(found))
	}
	return n.begin(ctx, r)
}

// adopt makes this node a member of a cluster that has let it in.
func (n *membership) adopt(cluster string, members []state.Member) (done bool, err error) {
	for _, m := range members {
		if m.ID != n.self.ID {
			n.book.Learn(m)
		}
	}
	if err := n.ident.reserve(cluster); err != nil {
		return false, err
	}
	return true, n.become(cluster, nil)
}

// remember writes down the addresses of the members, for a start at which nobody else is found. It runs until ctx ends.
func (n *membership) remember(ctx context.Context) {
	last := n.ident.identity().Peers
	for {
		next := n.store.Next()
		var again <-chan time.Time
		now := make(map[string]state.Member)
		it := n.store.State().Members.Root().Iterator()
		for _, m, ok := it.Next(); ok; _, m, ok = it.Next() {
			now[m.ID] = m
		}
		if len(now) > 0 && !maps.Equal(now, last) {
			if err := n.ident.save(func(id *identity) { id.Peers = now }); err != nil {
				n.log.Warn("the members' addresses cannot be saved; it is tried again", "err", err)
				again = time.After(rememberAgain)
			} else {
				last = now
			}
		}
		select {
		case <-next:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}
