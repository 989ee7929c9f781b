package clustertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/hooks"
)

// defaultDomain is what Serve serves if it is given no domains.
const defaultDomain = "api.test"

// serving is what Serve has been given.
type serving struct {
	handler func(i int, n *flotilla.Node) http.Handler
	domains []string
}

// program is what serves clients on a node: Node.Serve, or the program of the user. A nil program
// is none.
type program struct {
	node    atomic.Pointer[flotilla.Node] // the last one that was opened; nil: none yet
	private atomic.Bool                   // its certificates are of the authority within the cluster
	signal  context.CancelFunc            // ends its context
	ending  atomic.Bool                   // it is expected to end
	ended   chan struct{}                 // closed when it has
	err     error                         // what it has returned, once it has ended
}

// Serve serves on every node the handler that h returns for it, by Node.Serve, at the ports 443, 80
// and 8081 of the node. It does so on nodes that are restarted or added later too. Without domains
// that is api.test. Stop drains the node, as Config.Drain says. The cluster must be one of New; a
// program serves by itself. Call Serve once.
//
// An http.Server can serve only once. So with Config.Server of a node, set Config(i).Server to a
// new one before Restart.
func (c *Cluster) Serve(h func(i int, n *flotilla.Node) http.Handler, domains ...string) {
	c.t.Helper()
	switch {
	case c.run != nil:
		c.t.Fatal("clustertest: the programs of this cluster serve themselves; leave out Serve, or start the cluster with New")
	case c.serving != nil:
		c.t.Fatal("clustertest: Serve was called before; give it all domains, and a handler that tells them apart")
	}
	if len(domains) == 0 {
		domains = []string{defaultDomain}
	}
	c.serving = &serving{h, slices.Clone(domains)}
	for _, i := range c.Live() {
		c.serve(i)
	}
}

// serve begins to serve on node i, which is open.
func (c *Cluster) serve(i int) {
	c.t.Helper()
	if c.configs[i].Witness {
		return // it serves no clients
	}
	n := c.Nodes[i]
	h := c.serving.handler(i, n)
	p := new(program)
	p.node.Store(n)
	c.launch(i, context.Background(), p, func(ctx context.Context) error {
		return n.Serve(ctx, h, c.serving.domains...)
	})
}

// startProgram starts the program of a machine, and waits until it has opened its node. It returns
// an error if the program ends before that.
func (c *Cluster) startProgram(m *machine) (*flotilla.Node, error) {
	c.t.Helper()
	i := m.node
	p, opened := new(program), make(chan struct{}, 1)
	ctx := hooks.With(context.Background(), func(h *hooks.Hooks) {
		m.hook(h)
		prepare := h.Config
		h.Config = func(cfg any) error {
			err := prepare(cfg)
			p.private.Store(cfg.(*flotilla.Config).TLS.Private)
			return err
		}
		h.Opened = func(node any) {
			p.node.Store(node.(*flotilla.Node))
			select {
			case opened <- struct{}{}:
			default: // it was opened before
			}
		}
	})
	cfg := c.configs[i]
	c.launch(i, ctx, p, func(ctx context.Context) error { return c.run(ctx, cfg) })
	late := time.NewTimer(stepTimeout)
	defer late.Stop()
	select {
	case <-opened:
		return p.node.Load(), nil
	case <-p.ended:
		return nil, fmt.Errorf("the program of %s has ended before it has opened a node: %w", name(i), p.err)
	case <-late.C:
		p.ending.Store(true)
		p.signal()
		c.t.Fatalf("the program of %s has opened no node within %v; it must give its context to flotilla.Open or flotilla.Serve", name(i), stepTimeout)
		return nil, nil
	}
}

// launch starts run as the program of node i. If run returns after a node was opened and before
// that is expected, the test fails.
func (c *Cluster) launch(i int, ctx context.Context, p *program, run func(context.Context) error) {
	ctx, p.signal = context.WithCancel(ctx)
	p.ended = make(chan struct{})
	c.programs[i] = p
	go func() {
		defer close(p.ended)
		p.err = errors.New("it has ended by a panic, or by runtime.Goexit")
		p.err = run(ctx)
		if p.node.Load() != nil && !p.ending.Load() {
			c.t.Errorf("%s serves no longer, and nobody has stopped it: %v", name(i), p.err)
		}
	}()
}

// expectEnd is called before something ends the program.
func (p *program) expectEnd() {
	if p != nil {
		p.ending.Store(true)
	}
}

// report waits a moment for a program that has closed its node, so that the test says why.
func (p *program) report() {
	if p == nil {
		return
	}
	late := time.NewTimer(time.Second)
	defer late.Stop()
	select {
	case <-p.ended:
	case <-late.C:
	}
}

// await ends the context of node i's program, waits until it has ended, and returns what it has
// returned. The test fails if it does not end.
func (c *Cluster) await(i int, p *program) error {
	if p == nil {
		return nil
	}
	p.signal()
	late := time.NewTimer(stepTimeout)
	defer late.Stop()
	select {
	case <-p.ended:
	case <-late.C:
		c.t.Errorf("the program of %s does not end within %v of the end of its context", name(i), stepTimeout)
	}
	if c.run != nil {
		c.machine(i).disk.settle()
		p.node.Load().Close() // as the end of a process does
	}
	select {
	case <-p.ended:
		return p.err
	default:
		return nil
	}
}

// isPrivate reports whether the authority within the cluster signs the certificates of node i.
func (c *Cluster) isPrivate(i int) bool {
	if c.run != nil {
		return c.programs[i].private.Load()
	}
	return usesPrivate(c.configs[i].TLS) && !c.configs[i].Witness
}

// hasCertificates reports whether a node with this status has all certificates of the names that it
// serves. It does not wait for another authority than that of the cluster.
func (c *Cluster) hasCertificates(i int, s flotilla.Status) bool {
	if c.programs[i] == nil || !c.isPrivate(i) {
		return true
	}
	none := func(x flotilla.Certificate) bool { return x.Serial == "" }
	return (c.run != nil || len(s.Certificates) > 0) && !slices.ContainsFunc(s.Certificates, none)
}
