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
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/frontend"
	"github.com/flotilla-ha/flotilla/internal/hostname"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/roles"
)

// handOverTime is how long handing over roles and the leadership may take.
const handOverTime = 5 * time.Second

// Serve opens a node and serves h with HTTPS for domains, until ctx is done. Then it shuts down as
// Config.Drain says: requests under way are answered, no connection is lost, the node hands over
// its roles and the leadership, and closes. Serve then returns nil. Health is served until the very
// end. Open, Node.Serve and Node.Shutdown do the same in steps.
//
// A node whose cluster was restored or recovered without it cannot go on as what it is. The same is
// true of one whose directory turns out to be an older copy. Serve then ends the node in the same
// way, and opens it again: its former state is set aside, and it joins as a new node. With
// Config.Server, which serves only once, it returns the reason instead: end the program and have it
// restarted. It also returns the reason if ctx is done before the node is open again.
//
// In development mode, no domains means localhost, and the addresses are those of Config for that
// mode.
func Serve(ctx context.Context, cfg Config, h http.Handler, domains ...string) error {
	var before error // why the node is opened again
	for {
		n, p, err := openToServe(ctx, cfg, domains)
		if err != nil {
			return err
		}
		if before != nil {
			n.log.Warn("the node was opened again, as a new one", "after", before)
		}
		before = n.serveToTheEnd(ctx, h, p)
		if ctx.Err() != nil || cfg.Server != nil || !membership.StartsAnew(before) {
			return before
		}
	}
}

// openToServe opens a node and the ports of Serve.
func openToServe(ctx context.Context, cfg Config, domains []string) (*Node, *ports, error) {
	var p *ports
	// The ports are opened before anything is written and before this node contacts others.
	n, err := open(ctx, cfg, func(n *Node) (err error) {
		p, err = n.openPorts(ctx, domains)
		return err
	})
	if err != nil {
		p.close()
		return nil, nil, err
	}
	return n, p, nil
}

// serveToTheEnd is Serve on a node that is already open.
func (n *Node) serveToTheEnd(ctx context.Context, h http.Handler, p *ports) error {
	// This does not run as a task of the node, because Shutdown waits for tasks.
	health, stopHealth := n.serveHealth(p.health, func(f func()) { go f() })
	defer stopHealth()
	err := n.serve(ctx, h, p, health)
	hand, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOverTime)
	defer cancel()
	return errors.Join(err, n.Shutdown(hand))
}

// Serve serves h, or the handler of Config.Server if h is nil, with HTTPS for domains at
// Config.HTTPSAddr. At Config.HTTPAddr it answers the challenges of the certificate authority and
// redirects all else to https. At Config.HealthAddr, if that is set, it serves Health. When ctx is
// done, it drains as Config.Drain says. It returns nil if every request under way was answered. If
// some had to be cut, the error says how many. It returns an error when something fails, and a
// *ConfigError if a port is in use or a domain is not valid. The node stays open, and Health
// reports that it is not ready any more.
//
// If the node's cluster was restored or recovered without it, or its directory is an older copy, it
// cannot go on as what it is. Serve drains then too, and returns the reason. Shut the node down and
// open it again, or end the program and have it restarted: Open sets the former state aside, and
// the node joins as a new one. After any other failure of the node Serve goes on with what the node
// has in memory.
//
// A program that wants its own http.Server should pass it as Config.Server rather than use
// ListenTLS. Closing that listener, or http.Server.Shutdown, loses connections that wait to be
// accepted.
func (n *Node) Serve(ctx context.Context, h http.Handler, domains ...string) error {
	p, err := n.openPorts(ctx, domains)
	if err != nil {
		return err
	}
	health, stopHealth := n.serveHealth(p.health, n.life.Tasks.Go)
	defer stopHealth()
	return n.serve(ctx, h, p, health)
}

// nodeKey is the key of the node in the contexts of requests.
type nodeKey struct{}

// withNode returns a function that puts n into contexts.
func withNode(n *Node) func(context.Context) context.Context {
	return func(ctx context.Context) context.Context { return context.WithValue(ctx, nodeKey{}, n) }
}

// NodeFrom returns the node that serves the request whose context ctx is, or derives from. Handlers
// and hooks of Serve and Node.Serve get such contexts, on the ports for HTTPS and for HTTP.
// NodeFrom returns nil for any other context, such as one of a server of your own on ListenTLS.
//
// With the function Serve it is the way to the node. That function may open the node again, as a
// new one, so a handler should not keep what NodeFrom returns.
func NodeFrom(ctx context.Context) *Node {
	n, _ := ctx.Value(nodeKey{}).(*Node)
	return n
}

// ports are the listeners of Serve, and the domains that it serves.
type ports struct {
	domains              []string
	https, plain, health *frontend.Listener // health is nil if Config.HealthAddr is empty
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
	p := &ports{domains: domains}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.https, err = n.openPort(ctx, "HTTPSAddr", n.cfg.HTTPSAddr); err != nil {
		return nil, err
	}
	if p.plain, err = n.openPort(ctx, "HTTPAddr", n.cfg.HTTPAddr); err != nil {
		return nil, err
	}
	if n.cfg.HealthAddr != "" {
		if p.health, err = n.openPort(ctx, "HealthAddr", n.cfg.HealthAddr); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// close closes all listeners. p may be nil.
func (p *ports) close() {
	if p == nil {
		return
	}
	for _, ln := range []*frontend.Listener{p.https, p.plain, p.health} {
		if ln != nil {
			ln.Close()
		}
	}
}

// healthAddr returns where Health is served: not always where Config.HealthAddr says.
func (p *ports) healthAddr() string {
	if p.health == nil {
		return "nowhere"
	}
	return p.health.Addr().String()
}

// serveHealth serves Health at ln on a goroutine that run starts. It does nothing if ln is nil. The
// channel gets the error that ends it.
func (n *Node) serveHealth(ln *frontend.Listener, run func(func())) (failed <-chan error, stop func()) {
	if ln == nil {
		return nil, func() {}
	}
	port := n.frontend.Health(ln, n.Health())
	return startPort(port, run), port.Close
}

// startPort serves a port on a goroutine that run starts. The channel gets the error that ends it.
func startPort(p *frontend.Port, run func(func())) <-chan error {
	failed := make(chan error, 1)
	run(func() { failed <- p.Serve() })
	return failed
}

// serve is Serve without the health port. It ends when healthFailed reports a failure. It closes
// the two other ports.
func (n *Node) serve(ctx context.Context, h http.Handler, p *ports, healthFailed <-chan error) error {
	defer p.https.Close()
	defer p.plain.Close()
	config, err := n.TLSConfig(p.domains...)
	if err != nil {
		return err
	}
	n.noteTLSPort(p.https.Addr())
	https, err := n.frontend.HTTPS(p.https, frontend.HTTPS{
		Server: n.cfg.Server, Handler: h, TLS: config,
		Bind:    func(c *tls.Config) { n.tickets.Bind(c, n.certs.Provisional) },
		Context: withNode(n),
	})
	if err != nil {
		return err
	}
	defer https.Close()
	plain := n.frontend.Plain(p.plain, n.HTTPHandler(nil), withNode(n))
	defer plain.Close()
	httpsFailed, plainFailed := startPort(https, n.life.Tasks.Go), startPort(plain, n.life.Tasks.Go)
	n.log.Info("serving", "https", https.Addr().String(), "health", p.healthAddr(), "domains", p.domains)
	anew, stop := mustStartAnew(n.life)
	defer stop()
	var why error
	select {
	case err = <-httpsFailed:
		return errs.Edge("serving", err)
	case err = <-plainFailed:
		return errs.Edge("serving", err)
	case err = <-healthFailed:
		return errs.Edge("serving", err)
	case <-n.life.Open.Done():
		return ErrClosed
	case <-anew.Done():
		why = errs.Edge("serving", context.Cause(anew))
	case <-ctx.Done():
	}
	return errors.Join(why, n.drain(context.WithoutCancel(ctx), https, plain))
}

// mustStartAnew returns a context that ends, for that reason, when an open node can only go on as a
// new one. The caller must call stop.
func mustStartAnew(l *lifecycle.Life) (anew context.Context, stop func()) {
	anew, end := context.WithCancelCause(context.Background())
	forget := context.AfterFunc(l.Works, func() {
		if err := context.Cause(l.Works); l.Open.Err() == nil && membership.StartsAnew(err) {
			end(err)
		}
	})
	return anew, func() {
		forget()
		end(nil)
	}
}

// drain makes the node not ready, hands over its public roles, and ends the ports without losing a
// request.
func (n *Node) drain(ctx context.Context, https, plain *frontend.Port) error {
	n.life.Drained.Store(true)
	n.life.Changed.Notify()
	graceTime := max(n.cfg.Drain.Grace, 0)
	n.log.Info("draining", "grace", graceTime, "patience", n.cfg.Drain.Patience, "event", event.DrainBegun)
	grace := time.NewTimer(graceTime)
	defer grace.Stop()
	ctx, cancel := context.WithTimeout(ctx, graceTime+n.cfg.Drain.Patience)
	defer cancel()
	// Clients come to the node while it holds a floating address. So addresses go first.
	if err := n.roles.YieldAll(ctx, (*roles.Tenure).IsPublic); err != nil {
		n.log.Warn("draining: the public roles of this node were not handed over in time", "err", err)
	}
	select {
	case <-grace.C:
	case <-n.life.Open.Done():
		return ErrClosed
	}
	var both sync.WaitGroup
	var httpsErr, plainErr error
	both.Go(func() { httpsErr = https.Drain(ctx) })
	both.Go(func() { plainErr = plain.Drain(ctx) })
	both.Wait()
	n.log.Info("drained", "event", event.DrainEnded)
	return errs.Edge("draining", errors.Join(httpsErr, plainErr))
}

// DrainAddr disconnects the clients of one address of this machine. Call it before a floating
// address leaves the machine: otherwise those connections would stay established for ever. It
// applies to connections of Serve. It compares the connection's own local address, not the one in a
// PROXY header. The next answer on each connection says that it is the last. Requests under way
// have until ctx ends, but at most Config.Drain.Patience. Idle connections are closed after a
// second. Then all that are left are closed, including hijacked ones. When DrainAddr returns, every
// connection that was open when it was called is closed. Connections that arrived meanwhile were
// told to close as well; to close them, call DrainAddr again when the address has left. With a ctx
// that has ended, it closes everything at once.
//
// It returns nil if no request was cut, and otherwise an error that says how many were.
func (n *Node) DrainAddr(ctx context.Context, addr netip.Addr) error {
	if !addr.IsValid() {
		return errs.Edge("draining an address", errors.New("the address is not valid"))
	}
	addr = addr.Unmap().WithZone("")
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Drain.Patience)
	defer cancel()
	if cut := n.frontend.DrainAddr(ctx, addr); cut > 0 {
		return errs.Edge("draining "+addr.String(), fmt.Errorf("%d requests were cut: %w", cut, context.Cause(ctx)))
	}
	return nil
}

// openPort listens at one of the addresses that Serve uses.
func (n *Node) openPort(ctx context.Context, field, addr string) (*frontend.Listener, error) {
	if err := n.mayListen(field, addr); err != nil {
		return nil, err
	}
	if ln, err := listenLent(n.cfg.Listen, "tcp", addr, field+", ", n.mayListen); ln != nil || err != nil {
		return ln, err
	}
	ln, err := frontend.Listen(ctx, "tcp", addr)
	if err != nil {
		reason := "the node cannot listen for clients at " + addr + errs.ListenRemedy(err)
		return nil, &ConfigError{Field: field, Reason: reason, Err: err}
	}
	return ln, nil
}

// listenLent listens by listen, which is Config.Listen. It returns nil if the node is to listen
// itself. use says what the listener is for, and ends in a comma and a space, or is empty. may
// checks the address of the socket.
func listenLent(
	listen func(network, addr string) (net.Listener, error), network, addr, use string, may func(field, addr string) error,
) (*frontend.Listener, error) {
	if listen == nil {
		return nil, nil
	}
	ln, err := listen(network, addr)
	if err != nil {
		return nil, &ConfigError{Field: "Listen", Reason: "it opens no listener for " + use + addr, Err: err}
	}
	if ln == nil {
		return nil, nil
	}
	if d, ok := ln.(interface{ SetDeadline(time.Time) error }); ok && errors.Is(d.SetDeadline(time.Time{}), net.ErrClosed) {
		return nil, &ConfigError{Field: "Listen", Reason: "it returns a closed listener for " + use + addr + "; open one on each call"}
	}
	if at, ok := ln.Addr().(*net.TCPAddr); ok {
		if err := may("Listen", at.String()); err != nil {
			return nil, errors.Join(err, ln.Close())
		}
	}
	return frontend.Lent(ln), nil
}

// servesNobody returns the error of a witness that is asked to serve clients.
func servesNobody() error {
	return &ConfigError{Field: "Witness", Reason: "a witness serves no clients; leave Witness out, or do not have this node serve"}
}

// mayListen returns an error if the node must not listen at addr. field is the field of Config for
// such an address.
func (n *Node) mayListen(field, addr string) error {
	if n.cfg.Witness {
		return servesNobody()
	}
	if !n.cfg.dev {
		return nil
	}
	return loopbackOnly(field, addr)
}

// listenAt opens the socket of ListenTLS or Listen.
func (n *Node) listenAt(field, network, addr string) (*frontend.Listener, error) {
	if err := n.mayListen(field, addr); err != nil {
		return nil, err
	}
	if ln, err := listenLent(n.cfg.Listen, network, addr, "", n.mayListen); ln != nil || err != nil {
		return ln, err
	}
	ln, err := frontend.Listen(context.Background(), network, addr)
	if err != nil {
		return nil, errs.Edge("listening", err)
	}
	return ln, nil
}

// TLSConfig returns a configuration that serves the certificates of domains. The node has them
// obtained and renewed. The configuration answers TLS-ALPN-01 challenges for any node of the
// cluster, and its sessions resume on any node. TLSConfig does not wait for certificates: while the
// cluster has none for a domain, clients get a self-signed one. While this node cannot know whether
// there is one, handshakes wait for at most five seconds and then fail.
//
// Session tickets are bound to the fields that you set before the configuration is used, such as
// ClientAuth. If you change a clone instead, its clients must not resume the sessions of other
// clones, and theirs must not resume its sessions: set SessionTicketsDisabled.
func (n *Node) TLSConfig(domains ...string) (*tls.Config, error) {
	if n.life.Open.Err() != nil {
		return nil, ErrClosed
	}
	if n.cfg.Witness {
		return nil, servesNobody()
	}
	config, err := n.certs.TLSConfig(domains...)
	if err != nil {
		return nil, err
	}
	n.tickets.Bind(config, n.certs.Provisional)
	return config, nil
}

// ListenTLS listens for clients on a TCP address and speaks TLS with the certificates of domains,
// as TLSConfig does. It reads the PROXY header first where Config.Proxies says so. The network is
// "tcp", "tcp4" or "tcp6". Config.Listen opens the socket if it is set. With an http.Server, call
// Serve on the listener, not ServeTLS. In development mode the address must be a loopback address.
func (n *Node) ListenTLS(network, addr string, domains ...string) (net.Listener, error) {
	config, err := n.TLSConfig(domains...)
	if err != nil {
		return nil, err
	}
	ln, err := n.listenAt("HTTPSAddr", network, addr)
	if err != nil {
		return nil, err
	}
	n.noteTLSPort(ln.Addr())
	return n.frontend.Wrap(ln, config), nil
}

// Listen is ListenTLS without TLS: it listens for clients on a TCP address, and reads the PROXY
// header where Config.Proxies says so. RemoteAddr of its connections is then the address of the
// client. A client must send its first byte within ten seconds. A client that reads nothing for
// thirty seconds loses its connection. Programs that do not use Serve serve HTTPHandler on it.
func (n *Node) Listen(network, addr string) (net.Listener, error) {
	if n.life.Open.Err() != nil {
		return nil, ErrClosed
	}
	ln, err := n.listenAt("HTTPAddr", network, addr)
	if err != nil {
		return nil, err
	}
	return n.frontend.Wrap(ln, nil), nil
}

// noteTLSPort tells the redirects of development mode the port of HTTPS.
func (n *Node) noteTLSPort(at net.Addr) {
	if addr, ok := at.(*net.TCPAddr); ok {
		n.certs.ServedAt(addr.Port)
	}
}

// HTTPHandler answers the HTTP-01 challenges of the certificate authority for any node of the
// cluster, from this node's memory. All other requests go to next. If next is nil, they are
// redirected to https, to the same path of the same host. A request gets status 400 if its Host is
// not a valid host name or address, or if its target is not a path of that host.
func (n *Node) HTTPHandler(next http.Handler) http.Handler { return n.certs.HTTPHandler(next) }

// HSTS tells browsers to use only https for maxAge, counted in full seconds from each answer. It
// sets Strict-Transport-Security (RFC 6797) on the answers of next. It does so only over TLS, and
// only for hosts that have a certificate from the certificate authority, because a browser that has
// seen the header lets nobody skip a certificate warning. It never does so for IP addresses or in
// development mode. Zero makes browsers forget it. A negative maxAge, or one below a second, such
// as a number of seconds without a unit, sets nothing and is logged as an error. A header that next
// sets itself is kept.
func (n *Node) HSTS(maxAge time.Duration, next http.Handler) http.Handler {
	return n.certs.HSTS(maxAge, next)
}

// TrustForwarded is for programs behind a proxy that speaks HTTP and names its client in
// X-Forwarded-For. Without TrustForwarded, no such header is trusted. For a balancer that only
// forwards bytes, use Config.Proxies instead.
//
// In requests from proxies, RemoteAddr becomes the rightmost address of X-Forwarded-For that is not
// itself in proxies. Everything to the left of it is only the client's claim. If that place holds
// something other than an address, or nothing, RemoteAddr is the last proxy found. The port of
// RemoteAddr is 0 if the header has none. The other X-Forwarded headers, such as X-Forwarded-Proto,
// reach next as they are: the proxy must set them, and must not pass on those of a client.
// Request.TLS still describes the connection to the proxy.
//
// All X-Forwarded headers are deleted from requests of other peers. Forwarded and X-Real-IP are
// always deleted: a proxy that does not know them passes on what a client sends.
func TrustForwarded(proxies []netip.Prefix, next http.Handler) http.Handler {
	return frontend.TrustForwarded(proxies, next)
}
