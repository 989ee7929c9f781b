package membership

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

// Config is what a membership needs of the node around it.
type Config struct {
	Peers      func(context.Context) ([]string, error) // finds addresses of nodes; nil: nobody
	Expect     int                                     // how many nodes form a new cluster together
	RemoveDead time.Duration                           // see Config of the root package
	Timing     timing.Timing
	Log        *slog.Logger
	Life       *lifecycle.Life
	Self       *self.Self
	Ident      *IdentityFile
	Store      *applied.Store
	Book       *peers.Table
	Port       *wire.Port
	Replica    *replica.Replica
	Keeper     *lease.Manager
	Up         Up
}

// Up is what a membership asks of the parts above it.
type Up struct {
	OwnSettings func() Settings           // what this node tells others of its configuration
	StillSeen   func(session uint64) bool // something public is held by a session yet, or kept without it
}

// Membership leads a node into its cluster, keeps it there, and decides with whom it is in one.
type Membership struct {
	Config
	unanswered unanswered
	settings   peerSettings
	greeted    notify.Signal // a peer has said hello
	Forming    forming       // how long it has been waiting for others to form a cluster
}

func New(cfg Config) *Membership {
	n := &Membership{Config: cfg}
	n.Forming.Heard()
	return n
}

// Round is what one round of greetings has found.
type Round struct {
	Cluster string              // the proposed one that this node stood by before it greeted anybody
	Greeted map[string]Greeting // by node ID, without this node
	at      map[string]string   // who answered, by address
	silent  []string            // addresses that neither answered nor refused
	unsafe  []string            // nodes that cannot be in one cluster with this one as they are configured, and why
	Err     error               // why this node cannot go on
	wait    error               // why it cannot yet
}

// Greet asks every address that might be a node's.
func (n *Membership) Greet(ctx context.Context) Round {
	r := Round{Greeted: make(map[string]Greeting), at: make(map[string]string)}
	if f := n.Ident.Identity().Formation; f != nil {
		r.Cluster = f.Cluster
	}
	addrs, failures := make(map[string]bool), make(map[string]error)
	defer func() { n.unanswered.replace(failures) }()
	if n.Peers != nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		found, err := n.Peers(ctx)
		cancel()
		if err != nil && ctx.Err() == nil {
			n.Log.Debug("looking for peers failed; it is tried again", "err", err)
			failures["the peers themselves"] = err
			r.silent = append(r.silent, "the peers that were not found")
		}
		for _, a := range found {
			addrs[a] = true
		}
	}
	for id, m := range n.Book.All() {
		if id != n.Self.ID {
			addrs[m.Addr] = true
		}
	}
	delete(addrs, n.Self.Addr)

	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	hello := n.Greeting()
	own := hello.Settings
	body, err := json.Marshal(hello)
	if err != nil {
		r.Err = err
		return r
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var refused *RefusedError
	for addr := range addrs {
		wg.Go(func() {
			id, reply, err := n.Replica.Port.CallAddr(ctx, addr, rpc.Hello, body)
			var g Greeting
			if err == nil {
				err = json.Unmarshal(reply, &g)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				n.Log.Debug("a peer does not answer", "addr", addr, "err", err)
				if !errors.Is(err, syscall.ECONNREFUSED) {
					r.silent = append(r.silent, addr)
				}
				failures[addr] = err
			case id == n.Self.ID && g.Boot == n.Self.Incarnation: // an address of our own
			case id != g.ID:
				n.Log.Warn("a peer says that it is another than it proved to be", "addr", addr)
			default:
				r.at[addr] = id
				n.settings.hear(id, g.Settings)
				if why := g.Settings.unsafe(own); why != "" {
					r.unsafe = append(r.unsafe, fmt.Sprintf("%s at %s: %s", g.Name, g.Addr, why))
				} else if id != n.Self.ID {
					r.Greeted[id] = g
				}
				if g.Refused != nil && g.Refused.Kind == refusedSettings {
					r.Err = &errs.ConfigError{Field: TimingSetting, Reason: "the node at " + g.Addr + " refuses this node: " + g.Refused.Why}
				} else if g.Refused != nil && n.heeds(&g) {
					refused = worst(refused, &RefusedError{*g.Refused, g.Addr})
				}
			}
		})
	}
	wg.Wait()
	if refused != nil && refused.Kind == refusedWait {
		r.wait = refused
	} else if refused != nil {
		r.Err = refused
	}
	cluster := n.Ident.ClusterID()
	for id, g := range maps.Clone(r.Greeted) {
		wg.Go(func() {
			if cluster != "" && g.Cluster != "" && g.Cluster != cluster {
				n.Book.Learn(g.Member)
				return
			}
			if n.Meet(ctx, &g) != nil {
				mu.Lock()
				defer mu.Unlock()
				delete(r.Greeted, id)
				return
			}
			for _, m := range g.Members {
				if m.ID != n.Self.ID {
					n.Book.Learn(m)
				}
			}
		})
	}
	wg.Wait()
	return r
}

// outvoted returns why this node, a member, does not start raft: some members have a Timing that does not go with its own, and
// those who have the same are no majority. Those who are ready refuse it besides.
func (n *Membership) outvoted(r *Round) error {
	if members := len(n.Ident.Identity().Peers); len(r.unsafe) > 0 && len(r.Greeted)+1 <= members/2 {
		return errors.New("the members are not configured alike, and this one is not of their majority")
	}
	return nil
}

// heeds reports whether the refusal of a peer counts. A node of another cluster that was started here by
// mistake harms nobody but itself. A process that the cluster has given a session is the one, whatever a
// peer that was away may have known before.
func (n *Membership) heeds(g *Greeting) bool {
	own := n.Ident.Identity()
	switch last, _ := n.Store.State().Process(n.Self.ID); {
	case own.Cluster == "":
		return true
	case g.Cluster != own.Cluster:
		return g.Refused.Kind == refusedForeign && len(own.Peers) < 2
	case g.Refused.Kind == refusedRemoved:
		return true
	default:
		return last.Incarnation != n.Self.Incarnation
	}
}

// Enter makes this node run raft: again if it is a member, else when it has found a cluster or formed one.
func (n *Membership) Enter(ctx context.Context) error {
	n.Forming.Since = time.Now()
	wait := seekShortest
	for {
		news := n.greeted.Wait()
		r := n.Greet(ctx)
		if r.Err != nil {
			return r.Err
		}
		var done bool
		err := r.wait
		switch member := n.Ident.Identity().Member; {
		case err != nil: // the cluster has yet to decide which process is the one
		case !member:
			done, err = n.tryEnter(ctx, &r)
		default:
			if err = n.outvoted(&r); err == nil {
				if err := n.Replica.StartRaft(); err != nil {
					n.Replica.Interrupt(err)
				}
				return nil
			}
		}
		if done && err != nil && replica.MayPass(err) { // the disk's: nothing has come of it, or all but raft's start
			if done = n.Ident.Identity().Member; done {
				n.Replica.Interrupt(err)
				return nil
			}
			err = n.Replica.Explain(err)
		}
		if done || ctx.Err() != nil {
			return err
		}
		if err != nil {
			why := strings.Join(append(r.unsafe, err.Error()), "; ")
			if old := n.Life.WaitsFor.Swap(&why); old == nil || *old != why {
				n.Log.Info("not in a cluster yet", "why", why)
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
func (n *Membership) tryEnter(ctx context.Context, r *Round) (done bool, err error) {
	f := n.Ident.Identity().Formation
	for _, g := range r.Greeted {
		if g.InRaft && g.Cluster != "" && slices.Contains(g.Committed, n.Self.ID) && (f == nil || f.Cluster == g.Cluster) {
			return n.adopt(g.Cluster, g.Members) // let in before
		}
	}
	if f != nil {
		return n.Pursue(ctx, r, *f)
	}
	found := ""
	for _, g := range r.Greeted {
		if g.Cluster != "" && found != "" && g.Cluster != found {
			return false, fmt.Errorf("the peers belong to two clusters, %s and %s; give this node the addresses of one", slogbridge.Short(found), slogbridge.Short(g.Cluster))
		}
		found = max(found, g.Cluster)
	}
	for _, g := range r.Greeted {
		if !g.InRaft || len(g.Servers) == 0 {
			continue
		}
		leader := g.Leader
		if leader == "" {
			return false, fmt.Errorf("the cluster of the node at %s has no leader", g.Addr)
		}
		ctx, cancel := context.WithTimeout(ctx, 2*n.Replica.AttemptTimeout()) // the leader takes one at most
		in, err := rpc.Call[joining](ctx, n.Replica.Port, leader, rpc.Join, n.Greeting())
		cancel()
		if err != nil {
			return false, fmt.Errorf("joining: %w", err)
		}
		return n.adopt(in.Cluster, in.Members)
	}
	if found != "" {
		return false, fmt.Errorf("the nodes of the cluster %s are not up yet", slogbridge.Short(found))
	}
	return n.Begin(ctx, r)
}

// adopt makes this node a member of a cluster that has let it in.
func (n *Membership) adopt(cluster string, members []state.Member) (done bool, err error) {
	for _, m := range members {
		if m.ID != n.Self.ID {
			n.Book.Learn(m)
		}
	}
	if err := n.Ident.reserve(cluster); err != nil {
		return false, err
	}
	return true, n.become(cluster, nil)
}

// Remember writes down the addresses of the members, for a start at which nobody else is found. It runs until ctx ends.
func (n *Membership) Remember(ctx context.Context) {
	last := n.Ident.Identity().Peers
	for {
		next := n.Store.Next()
		var again <-chan time.Time
		now := make(map[string]state.Member)
		it := n.Store.State().Members.Root().Iterator()
		for _, m, ok := it.Next(); ok; _, m, ok = it.Next() {
			now[m.ID] = m
		}
		if len(now) > 0 && !maps.Equal(now, last) {
			if err := n.Ident.Save(func(id *Identity) { id.Peers = now }); err != nil {
				n.Log.Warn("the members' addresses cannot be saved; it is tried again", "err", err)
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
