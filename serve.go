package flotilla

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/frontend"
	"github.com/flotilla-ha/flotilla/internal/hostname"
	"github.com/flotilla-ha/flotilla/internal/roles"
)

const (
	drainGrace    = 3 * time.Second  // for balancers to see that the node is not ready
	drainPatience = 20 * time.Second // for requests under way to finish
	handPatience  = 5 * time.Second  // for handing over what the node leads and holds
)

// Serve opens a node and serves h with HTTPS for domains, until ctx is done. Then it takes its leave as Config.Drain says: requests under way get their
// answers, no connection is lost, the node hands over and closes, and Serve returns nil. Health is served until the very end. Everything
// else that it does can be done with Open, Node.Serve and Node.Shutdown.
//
// In development mode no domain stands for localhost, and the addresses are Config's for that mode.
func Serve(ctx context.Context, cfg Config, h http.Handler, domains ...string) error {
	var p *ports
	n, err := open(ctx, cfg, func(n *Node) (err error) { // before anything is written, and before anybody hears of this node
		p, err = n.openPorts(ctx, domains)
		return err
	})
	if err != nil {
		p.close()
		return err
	}
	return n.serveToTheEnd(ctx, h, p)
}

// serveToTheEnd is Serve on a node that is open.
func (n *Node) serveToTheEnd(ctx context.Context, h http.Handler, p *ports) error {
	defer p.health.Close()
	n.startHealth(p.health, func(f func()) { go f() }) // not one of the node's goroutines, which Shutdown waits for
	err := n.serve(ctx, h, p)
	hand, cancel := context.WithTimeout(context.WithoutCancel(ctx), handPatience)
	defer cancel()
	return errors.Join(err, n.Shutdown(hand))
}

// Serve serves h, or the handler of Config.Server if h is nil, with HTTPS for domains at Config.HTTPSAddr, and at Config.HTTPAddr the challenges of the
// certificate authority and redirects to https; if Config.HealthAddr is set, also Health there. When ctx is done it takes its leave as Config.Drain
// says, and returns nil once every request under way has its answer; if some had to be cut, it says how many. It returns an error when something
// fails: a *ConfigError for a port that is in use, and for what is no domain. The node stays open, and is not ready any more in the eyes of Health.
//
// Programs that want an http.Server of their own should pass it as Config.Server rather than use ListenTLS: closing that listener, or
// http.Server.Shutdown, loses connections that wait to be accepted.
func (n *Node) Serve(ctx context.Context, h http.Handler, domains ...string) error {
	p, err := n.openPorts(ctx, domains)
	if err != nil {
		return err
	}
	defer p.health.Close()
	n.startHealth(p.health, n.life.Tasks.Go)
	return n.serve(ctx, h, p)
}

// ports are what Serve listens on, and for which names.
type ports struct {
	domains              []string
	https, plain, health *frontend.Front // health has no listener if nobody wants that
}

// close closes all of them. That of nil does nothing.
func (p *ports) close() {
	if p == nil {
		return
	}
	for _, f := range []*frontend.Front{p.https, p.plain, p.health} {
		if f != nil {
			f.Close()
		}
	}
}

// openPorts checks the domains and listens. Nothing is accepted yet.
func (n *Node) openPorts(ctx context.Context, domains []string) (_ *ports, err error) {
	if len(domains) == 0 {
		if !n.cfg.dev {
			return nil, &ConfigError{Field: errs.Domains, Reason: "name at least one domain to serve"}
		}
		domains = []string{"localhost"}
	}
	if _, err := hostname.ForCertificates(domains, n.certs.SolvesDNS()); err != nil {
		return nil, err
	}
	p := &ports{domains: domains, health: new(frontend.Front)}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.https, err = n.openFront(ctx, "HTTPSAddr", n.cfg.HTTPSAddr); err != nil {
		return nil, err
	}
	if p.plain, err = n.openFront(ctx, "HTTPAddr", n.cfg.HTTPAddr); err != nil {
		return nil, err
	}
	if n.cfg.HealthAddr != "" {
		if p.health, err = n.openFront(ctx, "HealthAddr", n.cfg.HealthAddr); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// startHealth serves Health, by a goroutine that run starts, if it has a listener.
func (n *Node) startHealth(f *frontend.Front, run func(func())) {
	if f.Ln != nil {
		f.Use(frontend.SmallServer(n.Health(), n.log), f.Ln)
		run(f.Serve)
	}
}

// serve is Serve beside the health server. It closes the two other ports.
func (n *Node) serve(ctx context.Context, h http.Handler, p *ports) error {
	https, plain, health := p.https, p.plain, p.health
	defer https.Close()
	defer plain.Close()
	config, err := n.TLSConfig(p.domains...)
	if err != nil {
		return err
	}
	srv, err := frontend.HTTPSServer(n.cfg.Server, h, config, n.log, func(c *tls.Config) { n.tickets.Bind(c, n.certs.Provisional) })
	if err != nil {
		return err
	}
	https.Use(srv, n.withTLS(https.Ln, config))
	plain.Use(frontend.SmallServer(n.HTTPHandler(nil), n.log), frontend.Wrap(n.gate, plain.Ln, n.cfg.Proxies, nil))
	n.fronts.Add(https, plain)
	defer n.fronts.Remove(https, plain)
	n.life.Tasks.Go(https.Serve)
	n.life.Tasks.Go(plain.Serve)
	n.log.Info("serving", "https", https.Ln.Addr().String(), "domains", p.domains)
	select {
	case <-https.Done:
		return errs.Edge("serving", https.Err)
	case <-plain.Done:
		return errs.Edge("serving", plain.Err)
	case <-health.Done:
		return errs.Edge("serving", health.Err)
	case <-n.life.Open.Done():
		return ErrClosed
	case <-ctx.Done():
	}
	n.life.Drained.Store(true)
	n.life.Changed.Notify()
	n.log.Info("draining", "grace", max(n.cfg.Drain.Grace, 0), "patience", n.cfg.Drain.Patience)
	grace := time.NewTimer(n.cfg.Drain.Grace)
	defer grace.Stop()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.cfg.Drain.Patience+max(n.cfg.Drain.Grace, 0))
	defer cancel()
	// Clients come to the addresses that this node holds for as long as it does.
	if err := n.roles.YieldAll(end, (*roles.Tenure).IsPublic); err != nil {
		n.log.Warn("draining: what is seen of this node was not handed over in time", "err", err)
	}
	select {
	case <-grace.C:
	case <-n.life.Open.Done():
		return ErrClosed
	}
	var ends sync.WaitGroup
	failed := make([]error, 2)
	for i, f := range []*frontend.Front{https, plain} {
		ends.Go(func() { failed[i] = f.Drain.End(end, f.Ln) })
	}
	ends.Wait()
	n.log.Info("drained")
	return errs.Edge("draining", errors.Join(failed...))
}

// openFront listens; use is to follow.
func (n *Node) openFront(ctx context.Context, field, addr string) (*frontend.Front, error) {
	ln, err := n.listen(ctx, field, addr)
	if err != nil {
		return nil, err
	}
	return frontend.NewFront(ln, n.log), nil
}

// DrainAddr has the clients go that are connected to one address of this machine, as when a floating address is about to leave it: their connections would stay
// established for ever. It is about the address that the connection itself has here, which is not what a PROXY header says, and about the connections of
// Serve. The next answer on each says that it is the last; requests under way have until ctx ends, and no longer than
// Config.Drain.Patience, to end; connections at rest are closed after a second. Then what is left is closed, hijacked connections too. When
// DrainAddr returns, none of the connections is left that were there when it was called. Those that came meanwhile were told to go as well; another call, when
// the address has left, sees to the rest, and at once if ctx has ended.
//
// It returns nil if there was nothing to do, and an error if requests had to be cut, which says how many.
func (n *Node) DrainAddr(ctx context.Context, addr netip.Addr) error {
	if !addr.IsValid() {
		return errs.Edge("draining an address", errors.New("the address is not valid"))
	}
	addr = frontend.PlainAddr(addr)
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Drain.Patience)
	defer cancel()
	var leaving sync.WaitGroup
	var cut atomic.Int64
	for _, f := range n.fronts.List() {
		leaving.Go(func() { cut.Add(int64(f.Drain.Leave(ctx, addr, f.Ln))) })
	}
	leaving.Wait()
	if cut.Load() == 0 {
		return nil
	}
	return errs.Edge("draining "+addr.String(), fmt.Errorf("%d requests were cut: %w", cut.Load(), context.Cause(ctx)))
}

// listen opens one of the addresses that clients use.
func (n *Node) listen(ctx context.Context, field, addr string) (*frontend.Listener, error) {
	if n.cfg.dev {
		if err := loopbackOnly(field, addr); err != nil {
			return nil, err
		}
	}
	ln, err := frontend.ListenTCP(ctx, "tcp", addr)
	if err != nil {
		return nil, &ConfigError{Field: field, Reason: "the node cannot listen for clients at " + addr + listenRemedy(err), Err: err}
	}
	return ln, nil
}

// listenRemedy says what to do about the error of a listener.
func listenRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return ", where another process listens; stop it, or choose another address"
	case errors.Is(err, syscall.EACCES):
		return ": ports below 1024 need the right to bind them, as by AmbientCapabilities=CAP_NET_BIND_SERVICE of systemd"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ", which is no address of this machine"
	}
	return ""
}

// TLSConfig returns a configuration that serves the certificates of domains, has them obtained and renewed, and answers TLS-ALPN-01
// challenges for any node of the cluster. Its sessions resume on any node. It does not wait for certificates: as long as the cluster has none for a
// domain, clients get a self-signed one, and while this node cannot know, handshakes wait, five seconds at most, and then fail.
//
// What is added to it before it is used, such as ClientAuth, its session tickets are bound to. Whoever changes a clone instead must not let its clients and those of
// other clones resume each other's sessions: SessionTicketsDisabled.
func (n *Node) TLSConfig(domains ...string) (*tls.Config, error) {
	if n.life.Open.Err() != nil {
		return nil, ErrClosed
	}
	config, err := n.certs.TLSConfig(domains...)
	if err != nil {
		return nil, err
	}
	n.tickets.Bind(config, n.certs.Provisional)
	return config, nil
}

// ListenTLS listens for clients on a TCP address and speaks TLS with them, after the PROXY header where Config.Proxies says so, with the
// certificates of domains as TLSConfig does. The network is "tcp", "tcp4" or "tcp6". Whoever uses it with an http.Server calls Serve on it, not
// ServeTLS. In development mode the address must be a loopback one.
func (n *Node) ListenTLS(network, addr string, domains ...string) (net.Listener, error) {
	config, err := n.TLSConfig(domains...)
	if err != nil {
		return nil, err
	}
	ln, err := n.listenAt("HTTPSAddr", network, addr)
	if err != nil {
		return nil, err
	}
	return n.withTLS(ln, config), nil
}

// Listen is ListenTLS for the plain port: it listens for clients on a TCP address, and reads the PROXY header where Config.Proxies says
// so. RemoteAddr of its connections is then the client's. A connection must send its first byte within ten seconds, and a client
// that takes nothing for thirty seconds loses its connection. It is what HTTPHandler is served on by programs that do not use Serve.
func (n *Node) Listen(network, addr string) (net.Listener, error) {
	if n.life.Open.Err() != nil {
		return nil, ErrClosed
	}
	ln, err := n.listenAt("HTTPAddr", network, addr)
	if err != nil {
		return nil, err
	}
	return frontend.Wrap(n.gate, ln, n.cfg.Proxies, nil), nil
}

// withTLS returns what clients of a port speak TLS to.
func (n *Node) withTLS(ln net.Listener, config *tls.Config) net.Listener {
	if addr, ok := ln.Addr().(*net.TCPAddr); ok {
		n.certs.ServedAt(addr.Port)
	}
	return frontend.Wrap(n.gate, ln, n.cfg.Proxies, config)
}

// listenAt opens the socket of ListenTLS or Listen. The field is the one of Config that has such an address.
func (n *Node) listenAt(field, network, addr string) (*frontend.Listener, error) {
	if n.cfg.dev {
		if err := loopbackOnly(field, addr); err != nil {
			return nil, err
		}
	}
	ln, err := frontend.ListenTCP(context.Background(), network, addr)
	if err != nil {
		return nil, errs.Edge("listening", err)
	}
	return ln, nil
}

// HTTPHandler answers the HTTP-01 challenges of the certificate authority for any node of the cluster, from this node's memory. All other requests
// go to next; nil redirects them to https, to the same path of the host that they are for. A request whose Host is not a valid host name or address, or
// whose target is not a path of it, gets 400.
func (n *Node) HTTPHandler(next http.Handler) http.Handler { return n.certs.HTTPHandler(next) }

// HSTS tells browsers to come with https alone for maxAge, counted in full seconds and from each answer on: it sets Strict-Transport-Security
// (RFC 6797) on the answers of next. It does so only over TLS, and only for hosts whose certificate is there and from the certificate
// authority: a browser that has been told so lets nobody click a warning away. It never does for IP addresses, nor in
// development mode. Zero makes browsers forget. A negative maxAge, or one below a second, as of a bare number of seconds, sets nothing, and is
// logged as an error. What next sets itself is left alone.
func (n *Node) HSTS(maxAge time.Duration, next http.Handler) http.Handler {
	return n.certs.HSTS(maxAge, next)
}
