package flotilla

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Deadlines of the servers that Serve makes, and of its end.
const (
	headerTimeout = 10 * time.Second // for a TLS handshake, and for a request's header
	idleTimeout   = 2 * time.Minute  // between requests
	drainPatience = 20 * time.Second // for requests under way to finish
	handPatience  = 5 * time.Second  // for handing over what the node leads and holds
)

// Serve opens a node and serves h with HTTPS for domains, until ctx is done. Then requests under way get their answers, no connection
// is lost, the node hands over and closes, and Serve returns nil. Everything that it does can be done with Open, Node.Serve and
// Node.Shutdown.
//
// In development mode no domain stands for localhost, and the addresses are Config's for that mode.
func Serve(ctx context.Context, cfg Config, h http.Handler, domains ...string) error {
	n, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	err = n.Serve(ctx, h, domains...)
	hand, cancel := context.WithTimeout(context.WithoutCancel(ctx), handPatience)
	defer cancel()
	return errors.Join(err, n.Shutdown(hand))
}

// Serve serves h with HTTPS for domains at Config.HTTPSAddr, and at Config.HTTPAddr the challenges of the certificate authority
// and redirects to https; if Config.HealthAddr is set, also Health there. It returns when ctx is done and every request under way has its answer,
// with nil, or when something fails. The node stays open.
func (n *Node) Serve(ctx context.Context, h http.Handler, domains ...string) error {
	if len(domains) == 0 {
		if !n.cfg.dev {
			return edge("serving", errors.New("name at least one domain to serve"))
		}
		domains = []string{"localhost"}
	}
	config, err := n.TLSConfig(domains...)
	if err != nil {
		return err
	}
	var fronts []*front
	defer func() {
		for _, f := range fronts {
			f.srv.Close()
			f.ln.Close()
		}
	}()
	open := func(field, addr string, h http.Handler) (*front, error) {
		ln, err := n.listen(ctx, field, addr)
		if err != nil {
			return nil, err
		}
		f := &front{ln: ln, accept: ln, srv: &http.Server{
			Handler:           h,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
		}}
		f.drain = newDrainer(f.srv)
		fronts = append(fronts, f)
		return f, nil
	}
	https, err := open("HTTPSAddr", n.cfg.HTTPSAddr, h)
	if err != nil {
		return err
	}
	https.accept = n.certs.listenTLS(https.ln, n.cfg.Proxies, config)
	if _, err := open("HTTPAddr", n.cfg.HTTPAddr, n.HTTPHandler(nil)); err != nil {
		return err
	}
	if n.cfg.HealthAddr != "" {
		if _, err := open("HealthAddr", n.cfg.HealthAddr, n.Health()); err != nil {
			return err
		}
	}
	failed := make(chan error, len(fronts))
	for _, f := range fronts {
		n.tasks.run(func() { failed <- f.srv.Serve(f.accept) })
	}
	n.log.Info("serving", "https", https.ln.Addr().String(), "domains", domains)
	select {
	case err = <-failed:
		return edge("serving", err)
	case <-n.life.Done():
		return ErrClosed
	case <-ctx.Done():
	}
	n.drained.Store(true)
	n.changed.poke()
	n.log.Info("draining")
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainPatience)
	defer cancel()
	var errs []error
	for _, f := range fronts { // health last: it says until then that this node drains
		errs = append(errs, f.drain.end(end, f.ln))
	}
	return edge("draining", errors.Join(errs...))
}

// front is one server and its listener.
type front struct {
	srv    *http.Server
	drain  *drainer
	ln     *drainListener
	accept net.Listener // ln, or what is on top of it
}

// listen opens one of the addresses that clients use.
func (n *Node) listen(ctx context.Context, field, addr string) (*drainListener, error) {
	if n.cfg.dev {
		if err := loopbackOnly(field, addr); err != nil {
			return nil, err
		}
	}
	ln, err := listenTCP(ctx, "tcp", addr)
	if err != nil {
		return nil, &ConfigError{Field: field, Reason: "the node cannot listen for clients at " + addr, Err: err}
	}
	return ln, nil
}

// TLSConfig returns a configuration that serves the certificates of domains, has them obtained and renewed, and answers TLS-ALPN-01
// challenges for any node of the cluster. It does not wait for certificates: before there is one, handshakes do, for five seconds at most, and
// then fail.
func (n *Node) TLSConfig(domains ...string) (*tls.Config, error) {
	if n.life.Err() != nil {
		return nil, ErrClosed
	}
	config, err := n.certs.tlsConfig(domains...)
	if err != nil {
		return nil, err
	}
	n.tickets.bind(config, func(string) bool { return false })
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
	if n.cfg.dev {
		if err := loopbackOnly("HTTPSAddr", addr); err != nil {
			return nil, err
		}
	}
	ln, err := listenTCP(context.Background(), network, addr)
	if err != nil {
		return nil, edge("listening", err)
	}
	return n.certs.listenTLS(ln, n.cfg.Proxies, config), nil
}

// HTTPHandler answers the HTTP-01 challenges of the certificate authority for any node of the cluster, from this node's memory. All other requests
// go to next; nil redirects them to https.
func (n *Node) HTTPHandler(next http.Handler) http.Handler { return n.certs.httpHandler(next) }
