package rpc

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// Bounds of one call.
const (
	MaxRequest = 4 << 20  // bytes in the body of a call
	MaxReply   = 64 << 20 // bytes in the body of an answer

	maxMessage = 4 << 10 // bytes of an Error's message

	idleTime = time.Minute // after which a client closes a connection that no call uses

	// serverPing is after how much silence a server pings. Only callers are in a hurry. A client that
	// is there has closed the connection before.
	serverPing = 3 * idleTime / 2
)

// Config describes a Service. All fields but DeathNotice are needed.
type Config struct {
	Dialer  *peerconn.Dialer // makes the connections of the client
	Life    *peerconn.Life   // bounds the server and its connections
	Peers   *peerconn.Table  // learns of callers and of answers
	Handler http.Handler     // answers calls
	Timeout time.Duration    // of signs that a connection lives, such as answers to pings
	Logger  *slog.Logger     // gets the messages of net/http

	// Rejected counts the calls that are refused here, by the reason.
	Rejected *meter.Counters

	// DeathNotice is called for the bearer of a death notice. Nil: death notices are refused.
	DeathNotice func(ctx context.Context, node string, session uint64) error
}

// Service answers calls of other nodes and calls them. Its methods may be called from several
// goroutines at once.
type Service struct {
	cfg    Config
	server *http.Server
	queue  *queue
	byAddr *http.Transport // the host of a URL is an address

	mu   sync.Mutex
	byID map[string]*peer
}

// New begins to serve the connections that Take gets.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg, queue: newQueue(cfg.Life.Done()), byID: make(map[string]*peer)}
	s.byAddr = s.client(true, func(ctx context.Context, addr string) (*peerconn.Conn, error) {
		return cfg.Dialer.Addr(ctx, addr, peerconn.RPC)
	})
	s.byAddr.IdleConnTimeout = 5 * time.Second
	s.server = &http.Server{
		Handler:           http.HandlerFunc(s.handle),
		Protocols:         onlyHTTP2(),
		HTTP2:             &http.HTTP2Config{SendPingTimeout: serverPing, PingTimeout: cfg.Timeout},
		ReadHeaderTimeout: peerconn.HandshakeTimeout,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		ConnContext:       withCaller,
		// The goroutine of a connection that broke the rules of HTTP/2 stays for a second.
		// Life.Wait waits for it as well.
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew: // in the goroutine of Serve, which Life.Wait waits for
				cfg.Life.Hold()
			case http.StateClosed:
				cfg.Life.Leave()
			}
		},
	}
	cfg.Life.Go(func() { s.server.Serve(s.queue) })
	return s
}

// onlyHTTP2 returns HTTP/2 as the only protocol. TLS is below it.
func onlyHTTP2() *http.Protocols {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &p
}

// client returns a client whose connections dial makes.
func (s *Service) client(pings bool, dial func(ctx context.Context, addr string) (*peerconn.Conn, error)) *http.Transport {
	t := &http.Transport{
		Protocols:          onlyHTTP2(),
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			c, err := dial(ctx, addr)
			if err != nil {
				return nil, err // a nil *Conn is no nil net.Conn
			}
			return c, nil
		},
	}
	if pings {
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: s.cfg.Timeout, PingTimeout: s.cfg.Timeout}
	}
	return t
}

// peer returns the clients of a node.
func (s *Service) peer(id string) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.byID[id]
	if p == nil {
		p = &peer{pinged: s.line(id, true), quiet: s.line(id, false)}
		s.byID[id] = p
	}
	return p
}

// forget drops the clients of a node if they have no connections. A call that is about to make one
// goes on, and a later one does not share it.
func (s *Service) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.byID[id]; p != nil && !p.pinged.isOpen() && !p.quiet.isOpen() {
		delete(s.byID, id)
	}
}

func (s *Service) line(id string, pings bool) *line {
	l := &line{atRest: func() { s.forget(id) }}
	l.Transport = s.client(pings, func(ctx context.Context, _ string) (*peerconn.Conn, error) {
		c, err := s.cfg.Dialer.Node(ctx, id, peerconn.RPC)
		if err == nil {
			l.opened(c)
		}
		return c, err
	})
	return l
}

// Close ends the server and the idle connections of the client. The Life must have ended.
func (s *Service) Close() {
	s.server.Close()
	s.CloseIdle()
}

// CloseIdle closes the connections of the client that no call uses.
func (s *Service) CloseIdle() {
	s.byAddr.CloseIdleConnections()
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.byID))
	s.mu.Unlock() // forget may be called
	for _, p := range all {
		p.pinged.CloseIdleConnections()
		p.quiet.CloseIdleConnections()
	}
}

// Admit implements peerconn.Service. Every authenticated peer may call.
func (s *Service) Admit(peertls.Peer) error { return nil }

// Take implements peerconn.Service.
func (s *Service) Take(c *peerconn.Conn) (serve, cancel func()) {
	return func() {
		// net/http clears this deadline when the first bytes of HTTP/2 have come.
		c.SetReadDeadline(time.Now().Add(peerconn.HandshakeTimeout))
		s.queue.put(c)
	}, func() {}
}
