package alerts_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/hooks"
	"github.com/flotilla-ha/flotilla/status"
	"github.com/flotilla-ha/flotilla/vip"
)

// healthPort is that of the nodes of clustertest.
const healthPort = "8081"

// site is a cluster in real time, and a Prometheus that watches it.
type site struct {
	*testing.T
	c    *clustertest.Cluster
	link *vip.Memory
	addr netip.Prefix
	ca   *testca.Authority // nil: the cluster's own authority
	gate gate              // of the authority: some answers pass it
	name string            // that the nodes serve

	store   store // of backups
	says    atomic.Pointer[func(testca.Request) *testca.Refusal]
	since   atomic.Pointer[time.Time] // when the authority wanted renewals; nil: it wants none
	targets []string
	prom    *server
}

// gate holds something up while it is closed.
type gate struct{ closed atomic.Pointer[chan struct{}] }

func (g *gate) close() {
	c := make(chan struct{})
	g.closed.Store(&c)
}

func (g *gate) open() {
	if c := g.closed.Swap(nil); c != nil {
		close(*c)
	}
}

func (g *gate) pass() {
	if c := g.closed.Load(); c != nil {
		<-*c
	}
}

// world is what a site is built of.
type world struct {
	nodes     int // 0: three
	configure func(i int, cfg *flotilla.Config)
	backups   bool // are made each minute
	full      bool // the store of backups fails
	authority bool // there is one, that signs for an hour, and is asked each second about renewals
	silent    bool // which does not answer
}

// build starts a cluster. Each of its nodes competes for a floating address and serves a name.
func build(t *testing.T, w world) *site {
	t.Helper()
	s := &site{T: t, link: vip.NewMemory(), addr: netip.MustParsePrefix("192.0.2.100/24")}
	// certmagic remembers in the whole process that a renewal of a name has failed.
	s.name = fmt.Sprintf("%s-%d.test", strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())), rand.Uint32())
	if w.nodes == 0 {
		w.nodes = 3
	}
	s.store.fails.Store(w.full)
	if w.authority {
		s.ca = testca.New(t, testca.Config{Trusting: true, Lifetime: time.Hour, Window: s.window, LookAgain: time.Second})
		s.ca.SetUnreachable(w.silent)
		s.answer(nothing)
		s.ca.Refuse(func(r testca.Request) *testca.Refusal { return (*s.says.Load())(r) })
		t.Cleanup(s.gate.open)
	}
	s.c = clustertest.Start(t, clustertest.Options{
		Nodes: w.nodes, Run: s.run, Link: s.link,
		Configure: func(i int, cfg *flotilla.Config) {
			if s.ca != nil {
				cfg.TLS.Configure = s.ca.Configure
			}
			cfg.Drain.Grace = -1
			if w.backups {
				cfg.Backups = flotilla.Backups{Store: &s.store, Every: time.Minute}
			}
			if w.configure != nil {
				w.configure(i, cfg)
			}
		},
	})
	if w.silent {
		s.until("all are ready", time.Minute, func() bool {
			return !slices.ContainsFunc(s.c.Nodes, func(n *flotilla.Node) bool { return !n.Status().Ready })
		})
	} else {
		s.c.Settle()
	}
	for i := range w.nodes {
		s.target(i)
	}
	return s
}

// run is the program of the nodes.
func (s *site) run(ctx context.Context, cfg flotilla.Config) error {
	opening := hooks.With(ctx, func(h *hooks.Hooks) {
		hooks.Apply(ctx, h) // those of clustertest
		h.RenewalCheck = time.Second
	})
	n, err := flotilla.Open(opening, cfg)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- vip.Run(ctx, n, vip.Config{Addr: s.addr, Binder: s.link.Machine(cfg.Name), Logger: cfg.Logger})
	}()
	err = n.Serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }), s.name)
	return errors.Join(err, <-ended, n.Shutdown(context.WithoutCancel(ctx)))
}

// target makes the health port of a node, which is on the network in memory, one of this machine.
func (s *site) target(i int) {
	s.Helper()
	to, err := url.Parse(fmt.Sprintf("http://n%d:%s", i, healthPort))
	if err != nil {
		s.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = s.c.ClientOf(i).Transport
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, err.Error(), http.StatusBadGateway)
	}
	srv := httptest.NewServer(proxy)
	s.Cleanup(srv.Close)
	s.targets = append(s.targets, strings.TrimPrefix(srv.URL, "http://"))
	if s.prom != nil {
		s.prom.watch(s.targets)
	}
}

// watch starts the Prometheus. Nothing fires for a while.
func (s *site) watch(replaced map[string]string) {
	s.Helper()
	s.prom = serve(s.T, setting{rules: faster(s.T, text(s.T), replaced), targets: s.targets, listen: free(s.T, 1)[0]})
	s.until("all targets are there", time.Minute, func() bool {
		n, _ := s.prom.samples(`flotilla_build_info`)
		return n == len(s.targets)
	})
	s.calm(5 * time.Second)
}

// move has the node by move the address to another one. The node that has given the address up
// before waits for it again only after a moment.
func (s *site) move(by int, to string) {
	s.Helper()
	role := "vip/" + s.addr.Addr().String()
	s.until("two wait for the address", time.Minute, func() bool {
		roles := s.c.Nodes[by].Status().Roles
		i := slices.IndexFunc(roles, func(r status.Role) bool { return r.Name == role })
		return i >= 0 && roles[i].Waiting == 2
	})
	if err := s.c.Nodes[by].Move(s.Context(), role, to); err != nil {
		s.Errorf("the move to %s: %v", to, err)
	}
}

// until waits until ok. It returns how long that took.
func (s *site) until(what string, patience time.Duration, ok func() bool) time.Duration {
	s.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > patience {
			if s.prom != nil {
				fires, pends := s.prom.firing()
				s.Logf("firing: %v; pending: %v", fires, pends)
			}
			s.Fatalf("not within %v: %s", patience, what)
		}
		<-time.After(100 * time.Millisecond)
	}
	return time.Since(began)
}

// calm checks that no alert but those allowed fires for some time.
func (s *site) calm(d time.Duration, allowed ...string) {
	s.Helper()
	for began := time.Now(); time.Since(began) < d; <-time.After(200 * time.Millisecond) {
		s.only(allowed...)
	}
}

// only checks that no alert but those allowed fires. It returns what fires.
func (s *site) only(allowed ...string) []string {
	s.Helper()
	fires, _ := s.prom.firing()
	for _, name := range fires {
		if !slices.Contains(allowed, name) {
			s.Fatalf("%s fires, %v may", name, allowed)
		}
	}
	return fires
}

// past checks that no alert but those allowed has fired since the Prometheus was started, also
// between two looks.
func (s *site) past(allowed ...string) {
	s.Helper()
	for _, name := range s.prom.fired() {
		if !slices.Contains(allowed, name) {
			s.Errorf("%s has fired, %v might", name, allowed)
		}
	}
}

// leader returns the leader, and the others in order.
func (s *site) leader() (leader int, rest []int) {
	s.Helper()
	leader = s.c.Leader()
	for _, i := range s.c.Live() {
		if i != leader {
			rest = append(rest, i)
		}
	}
	return leader, rest
}

// again restarts nodes.
func (s *site) again(nodes ...int) {
	s.Helper()
	for _, i := range nodes {
		s.c.Restart(i)
	}
	s.c.Settle()
}

// nothing is refused.
func nothing(testca.Request) *testca.Refusal { return nil }

// answer sets what the authority refuses.
func (s *site) answer(f func(testca.Request) *testca.Refusal) { s.says.Store(&f) }

// due makes the authority say that renewals have been due for some time.
func (s *site) due(by time.Duration) {
	since := time.Now().Add(-by)
	s.since.Store(&since)
}

// window is the time in which the authority wants certificates to be renewed.
func (s *site) window(leaf *x509.Certificate) (start, end time.Time) {
	if since := s.since.Load(); since != nil {
		return since.Add(-time.Minute), *since
	}
	return leaf.NotAfter.Add(-20 * time.Minute), leaf.NotAfter.Add(-10 * time.Minute)
}

// relent makes the authority do its work.
func (s *site) relent() {
	s.since.Store(nil)
	s.answer(nothing)
	s.gate.open()
}

// write stores a record of that many bytes.
func (s *site) write(i int, key string, size int) {
	s.Helper()
	if err := s.c.Nodes[i].Storage().Store(s.Context(), key, make([]byte, size)); err != nil {
		s.Fatalf("storing %s: %v", key, err)
	}
}

// remove deletes a record.
func (s *site) remove(i int, key string) {
	s.Helper()
	if err := s.c.Nodes[i].Storage().Delete(s.Context(), key); err != nil {
		s.Fatalf("deleting %s: %v", key, err)
	}
}

// load stores small records until the test ends.
func (s *site) load(i int) {
	ctx, cancel := context.WithCancel(s.Context())
	done := make(chan struct{})
	s.Cleanup(func() { cancel(); <-done })
	node := s.c.Nodes[i]
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := node.Storage().Store(ctx, "load", nil); err != nil && ctx.Err() == nil {
				s.Errorf("storing: %v", err)
				return
			}
			<-time.After(50 * time.Millisecond)
		}
	}()
}

// present reports whether a node sees another one's session.
func (s *site) present(observer, other int) bool {
	id := s.c.Nodes[other].Status().ID
	return slices.ContainsFunc(s.c.Nodes[observer].Status().Members, func(m flotilla.Member) bool { return m.ID == id && m.Present })
}

// down removes the interfaces of all machines, or puts them back.
func (s *site) down(down bool) {
	for _, i := range s.c.Live() {
		s.link.Machine(s.c.Config(i).Name).SetDown(down)
	}
}
