package frontend

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/meter"
)

// Server is what the clients of a node connect to. Its ports share the limits, and DrainAddr
// reaches the clients of all of them. Make it with New. Its methods are safe for concurrent use.
type Server struct {
	log     *slog.Logger
	proxies []netip.Prefix // balancers that begin every connection with a PROXY header
	limiter *limiter

	mu    sync.Mutex
	ports []*Port // open ones, for DrainAddr
}

// New returns a server without ports. Peers in proxies must begin each connection with a PROXY
// header. No other peer's header is accepted.
func New(log *slog.Logger, proxies []netip.Prefix) *Server {
	return newServer(log, proxies, defaultLimits())
}

func newServer(log *slog.Logger, proxies []netip.Prefix, limits limits) *Server {
	return &Server{log: log, proxies: slices.Clone(proxies), limiter: newLimiter(log, limits)}
}

// Wrap returns a listener whose connections have passed the PROXY header, where one is due, and the
// limits, and speak TLS unless config is nil. With TLS they are *tls.Conn, which net/http needs to
// see for HTTP/2. The config is used as it is and not cloned, as http.Server.ServeTLS would: a
// clone misses session ticket keys that are set later (golang/go#22018).
//
// A handshake runs in the goroutine that reads first, never in Accept. RemoteAddr waits for the
// PROXY header, so Accept does not call it either.
func (s *Server) Wrap(ln net.Listener, config *tls.Config) net.Listener {
	if len(s.proxies) > 0 {
		ln = withProxyHeader(ln, s.proxies)
	}
	return &limitedListener{Listener: ln, limiter: s.limiter, config: config}
}

// HTTPS returns the port of ln, which serves HTTPS. It returns an *errs.ConfigError if the user's
// http.Server has served before. The caller runs Port.Serve, and closes the port.
func (s *Server) HTTPS(ln *Listener, o HTTPS) (*Port, error) {
	srv, err := o.server(s.log)
	if err != nil {
		return nil, err
	}
	return s.open(ln, s.Wrap(ln, o.TLS), srv), nil
}

// Plain returns a port on ln that serves h without TLS. It is for requests that take no more than
// seconds. Their contexts derive from what derive returns, as with HTTPS.Context. The caller runs
// Port.Serve, and closes the port.
func (s *Server) Plain(ln *Listener, h http.Handler, derive func(context.Context) context.Context) *Port {
	srv := smallServer(h, s.log, s.limiter.counts.limit)
	withContext(srv, derive)
	return s.open(ln, s.Wrap(ln, nil), srv)
}

// Health returns a port on ln that serves h to the checks of balancers and operators. It speaks
// neither TLS nor the PROXY protocol, and DrainAddr leaves it alone. The caller runs Port.Serve,
// and closes the port.
func (s *Server) Health(ln *Listener, h http.Handler) *Port {
	return newPort(ln, ln, smallServer(h, s.log, new(meter.Counter)), s.log, new(meter.Counter), func(*Port) {})
}

// open makes a port that DrainAddr reaches until it is closed.
func (s *Server) open(ln *Listener, accept net.Listener, srv *http.Server) *Port {
	p := newPort(ln, accept, srv, s.log, &s.Meters().DrainCut, s.forget)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports = append(s.ports, p)
	return p
}

// forget takes a closed port off the list.
func (s *Server) forget(p *Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports = slices.DeleteFunc(s.ports, func(o *Port) bool { return o == p })
}

// DrainAddr disconnects the clients that are connected to a local address. Their next answer says
// that it is the last. Requests under way have until ctx ends, and idle connections a second. Then
// every connection that was open when DrainAddr was called is closed. A connection that arrives
// meanwhile gets the same answer, but may remain. DrainAddr returns how many requests it has cut.
func (s *Server) DrainAddr(ctx context.Context, addr netip.Addr) (cut int) {
	s.mu.Lock()
	ports := slices.Clone(s.ports)
	s.mu.Unlock()
	addr = plainAddr(addr)
	var total atomic.Int64
	var all sync.WaitGroup
	for _, p := range ports {
		all.Go(func() { total.Add(int64(p.drainer.drainAddr(ctx, addr))) })
	}
	all.Wait()
	return int(total.Load())
}
