package membership

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// discoverTimeout bounds the search for addresses of peers.
const discoverTimeout = 5 * time.Second

// Round is what one round of greetings has found.
type Round struct {
	Greeted map[string]Greeting // by node ID, without this node
	Err     error               // why this node cannot go on

	notFound error             // why addresses of peers could not be found
	stoodBy  string            // the proposed cluster that this node stood by before the round
	at       map[string]string // who answered, by address
	silent   []string          // addresses that neither answered nor refused
	unsafe   []string          // nodes with settings that do not go with this one's, and why
	wait     error             // why this node cannot go on yet
}

// answer is what came back from one address.
type answer struct {
	addr string
	id   string // that the node there has proved
	Greeting
	err error
}

// Greet greets every address that may be a node's, and takes in what the answers say. It returns
// within a few seconds.
func (g *Greetings) Greet(ctx context.Context) Round {
	r := Round{Greeted: make(map[string]Greeting), at: make(map[string]string)}
	if f := g.ident.Identity().Formation; f != nil {
		r.stoodBy = f.Cluster
	}
	addrs, failures := make(map[string]bool), make(map[string]error)
	defer func() { g.unanswered.replace(failures) }()
	found, err := g.find(ctx)
	if r.notFound = err; err != nil {
		failures["the discovery of peers"] = err
	}
	for _, a := range found {
		addrs[a] = true
	}
	for id, m := range g.table.All() {
		if id != g.self.ID {
			addrs[m.Addr] = true
		}
	}
	delete(addrs, g.self.Addr)

	all := ctx
	ctx, cancel := context.WithTimeout(all, greetTimeout)
	defer cancel()
	own := g.Greeting()
	var refused *RefusedError
	for _, a := range g.ask(ctx, slices.Collect(maps.Keys(addrs)), own) {
		if a.err != nil {
			failures[a.addr] = a.err
		}
		refused = worst(refused, g.observe(&r, own.Settings, a))
	}
	if refused != nil && refused.Kind == refusedWait {
		r.wait = refused
	} else if refused != nil {
		asking, stop := context.WithTimeout(all, greetTimeout) // others may have used up the time
		defer stop()
		r.Err = g.refusedFor(asking, refused)
	}
	g.meetAll(ctx, &r)
	return r
}

// MeetStrangers greets all addresses if there is one that is no member's. Nodes of a former
// incarnation of the cluster are found so, and learn that they are. The error says that this node
// belongs to a former one.
func (g *Greetings) MeetStrangers(ctx context.Context) error {
	known := map[string]bool{g.self.Addr: true}
	for _, m := range state.Each(g.store.State().Members, nil) {
		known[m.Addr] = true
	}
	found, _ := g.find(ctx)
	for _, m := range g.table.All() {
		found = append(found, m.Addr)
	}
	if !slices.ContainsFunc(found, func(addr string) bool { return !known[addr] }) {
		return nil
	}
	if no := new(RefusedError); errors.As(g.Greet(ctx).Err, &no) && no.Kind == refusedSuperseded {
		return no
	}
	return nil
}

// find asks for addresses of peers. It returns no error when ctx ends.
func (g *Greetings) find(ctx context.Context) ([]string, error) {
	if g.discover == nil {
		return nil, nil
	}
	bounded, cancel := context.WithTimeout(ctx, discoverTimeout)
	defer cancel()
	found, err := g.discover(bounded)
	if err == nil || ctx.Err() != nil {
		return found, nil
	}
	g.log.Debug("looking for peers failed; it is tried again", "err", err)
	return found, err
}

// ask sends a greeting to all addresses at once, and returns what came back from each.
func (g *Greetings) ask(ctx context.Context, addrs []string, own Greeting) []answer {
	answers := make([]answer, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() {
			id, said, err := rpc.CallAddr(ctx, g.replica.Port, addr, rpc.Hello, own, DecodeGreeting)
			answers[i] = answer{addr, id, said, err}
		})
	}
	wg.Wait()
	return answers
}

// observe takes an answer into a round. It returns the refusal in the answer, if there is
// one that counts.
func (g *Greetings) observe(r *Round, own Settings, a answer) *RefusedError {
	switch {
	case a.err != nil:
		g.log.Debug("a peer does not answer", "addr", a.addr, "err", a.err)
		if !errors.Is(a.err, syscall.ECONNREFUSED) {
			r.silent = append(r.silent, a.addr)
		}
		return nil
	case a.id == g.self.ID && a.Incarnation == g.self.Incarnation: // another address of this process
		return nil
	case a.id != a.ID:
		g.log.Warn("a peer says that it is another than it proved to be", "addr", a.addr)
		return nil
	}
	r.at[a.addr] = a.id
	g.peerSettings.observe(a.id, a.Settings)
	if id := g.ident.Identity(); id.isOfOther(&a.Greeting) {
		g.log.Debug("a peer belongs to another incarnation of the cluster", "addr", a.addr)
	} else if why := a.Settings.unsafe(own); why != "" {
		r.unsafe = append(r.unsafe, fmt.Sprintf("%s at %s: %s", a.Name, a.Addr, why))
	} else if a.id != g.self.ID {
		r.Greeted[a.id] = a.Greeting
	}
	switch {
	case a.Refused == nil:
		return nil
	case a.Refused.Kind == refusedSettings:
		r.Err = &errs.ConfigError{Field: TimingSetting, Reason: "the node at " + a.Addr + " refuses this node: " + a.Refused.Why}
		return nil
	case g.copies.heeds(&a.Greeting):
		return &RefusedError{*a.Refused, a.Addr}
	}
	return nil
}

// meetAll judges those who have answered, and keeps those in the round who can go on as their
// nodes.
func (g *Greetings) meetAll(ctx context.Context, r *Round) {
	cluster := g.ident.ClusterID()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for id, said := range maps.Clone(r.Greeted) {
		wg.Go(func() {
			if cluster != "" && said.Cluster != "" && said.Cluster != cluster {
				g.table.Learn(said.Member)
				return
			}
			if g.copies.Meet(ctx, &said) != nil {
				mu.Lock()
				defer mu.Unlock()
				delete(r.Greeted, id)
				return
			}
			for _, m := range said.Members {
				if m.ID != g.self.ID {
					g.table.Learn(m)
				}
			}
		})
	}
	wg.Wait()
}
