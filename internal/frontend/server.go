package frontend

import (
	"container/list"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/mholt/acmez/v3"
)

// Limits of the server for HTTPS, where the user sets none. Config.Server names them.
const (
	headerTimeout   = 10 * time.Second // for a TLS handshake, and for a request's header
	idleTimeout     = 2 * time.Minute  // between requests
	maxHeader       = 64 << 10
	sendPingTimeout = 30 * time.Second // HTTP/2: of silence, until a client is asked whether it is there
	pingTimeout     = 15 * time.Second // HTTP/2: for its answer
	byteTimeout     = 30 * time.Second // HTTP/2: for one byte to be written
)

// Limits of the servers for redirects, challenges and health, whose requests and answers are small.
const (
	smallTimeout = 10 * time.Second // for a whole request, and for an answer
	smallIdle    = 30 * time.Second
	smallHeader  = 16 << 10
	smallConns   = 4096
)

// HTTPSServer returns the server for HTTPS, srv unless that is nil, with h and config, which it completes. bind is called with each other
// configuration that a handshake may get.
func HTTPSServer(srv *http.Server, h http.Handler, config *tls.Config, log *slog.Logger, bind func(*tls.Config)) (*http.Server, error) {
	if srv == nil {
		srv = new(http.Server)
	}
	if _, used := srv.Handler.(*drainHandler); used {
		return nil, &errs.ConfigError{Field: "Server", Reason: "it has served before; give every node, and every call of Serve, an http.Server of its own"}
	}
	if h != nil {
		srv.Handler = h
	}
	if srv.ReadTimeout <= 0 { // otherwise it stands for those that are zero, as net/http has it
		setDefault(&srv.ReadHeaderTimeout, headerTimeout)
		setDefault(&srv.IdleTimeout, idleTimeout)
	}
	setDefault(&srv.MaxHeaderBytes, maxHeader)
	if srv.ErrorLog == nil {
		srv.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	}
	var h2 http.HTTP2Config
	if srv.HTTP2 != nil {
		h2 = *srv.HTTP2
	}
	setDefault(&h2.SendPingTimeout, sendPingTimeout)
	setDefault(&h2.PingTimeout, pingTimeout)
	setDefault(&h2.WriteByteTimeout, byteTimeout)
	srv.HTTP2 = &h2
	if user := srv.TLSConfig; user != nil {
		MergeTLS(config, user, srv, bind)
	} else {
		config.NextProtos = spoken(config.NextProtos, srv)
	}
	srv.TLSConfig = config // where net/http looks for h2
	return srv, nil
}

// SmallServer returns a server for what needs no more than seconds.
func SmallServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:        h,
		ReadTimeout:    smallTimeout,
		WriteTimeout:   smallTimeout,
		IdleTimeout:    smallIdle,
		MaxHeaderBytes: smallHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState:      newConnLimit(min(smallConns, openFiles()/8)).Note,
	}
}

// connLimit bounds the connections of a server whose requests are short: one more closes the one whose state is the oldest. They may be silent for
// seconds each, and all of them have descriptors.
type connLimit struct {
	max int

	Mu     sync.Mutex
	Order  list.List // of net.Conn, the oldest in front
	Places map[net.Conn]*list.Element
}

func newConnLimit(limit int) *connLimit {
	return &connLimit{max: max(1, limit), Places: map[net.Conn]*list.Element{}}
}

// Note is for http.Server.ConnState.
func (c *connLimit) Note(conn net.Conn, s http.ConnState) {
	if oldest := c.move(conn, s); oldest != nil {
		oldest.Close()
	}
}

// move returns the connection that is to go, nil if none is.
func (c *connLimit) move(conn net.Conn, s http.ConnState) (oldest net.Conn) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	place := c.Places[conn]
	switch s {
	case http.StateNew:
		if c.Order.Len() >= c.max {
			oldest = c.Order.Remove(c.Order.Front()).(net.Conn)
			delete(c.Places, oldest)
		}
		c.Places[conn] = c.Order.PushBack(conn)
	case http.StateActive, http.StateIdle:
		if place != nil {
			c.Order.MoveToBack(place)
		}
	default:
		if place != nil {
			c.Order.Remove(place)
			delete(c.Places, conn)
		}
	}
	return oldest
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// spoken returns those of protos that srv speaks: the user may have switched HTTP/2 off in any of the ways that http.Server knows.
func spoken(protos []string, srv *http.Server) []string {
	_, own := srv.TLSNextProto["h2"]
	h1, h2 := true, own || srv.TLSNextProto == nil
	if srv.Protocols != nil {
		h1, h2 = srv.Protocols.HTTP1(), srv.Protocols.HTTP2()
	}
	return slices.DeleteFunc(slices.Clone(protos), func(p string) bool { return p == "h2" && !h2 || p == "http/1.1" && !h1 })
}

// MergeTLS puts what the user has set into our configuration, in place, so that what keeps it stays with it. bind is called with each other configuration that results. What ours sets it keeps, save MinVersion; of NextProtos there are both, and of GetConfigForClient both are asked.
func MergeTLS(ours, user *tls.Config, srv *http.Server, bind func(*tls.Config)) {
	base := ours.Clone() // for handshakes that get another configuration
	own, theirs := base.GetConfigForClient, user.GetConfigForClient
	fillTLS(ours, user, srv)
	// An authority that comes for a challenge has no certificate to show, and is nobody's client: its connection ends with the handshake.
	challenge := base.Clone()
	challenge.NextProtos = []string{acmez.ACMETLS1Protocol}
	challenge.SessionTicketsDisabled = true
	ours.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		o, err := configFor(own, hello, base)
		if err != nil {
			return nil, err
		}
		if slices.Equal(hello.SupportedProtos, challenge.NextProtos) {
			return challenge, nil
		}
		if theirs != nil {
			releaseSlot(hello.Conn) // it may take its time
		}
		u, err := configFor(theirs, hello, user)
		if err == nil {
			err = acquireSlot(hello)
		}
		if err != nil || o == base && u == user {
			return nil, err
		}
		merged := o.Clone()
		fillTLS(merged, u, srv)
		bind(merged)
		return merged, nil
	}
}

// configFor returns what f, which may be nil, has for a client, else c.
func configFor(f func(*tls.ClientHelloInfo) (*tls.Config, error), hello *tls.ClientHelloInfo, c *tls.Config) (*tls.Config, error) {
	if f == nil {
		return c, nil
	}
	got, err := f(hello)
	if got == nil || err != nil {
		return c, err
	}
	return got, nil
}

// fillTLS sets the fields of ours that are zero to the user's. Those that Go will add are among them.
func fillTLS(ours, user *tls.Config, srv *http.Server) {
	to, from := reflect.ValueOf(ours).Elem(), reflect.ValueOf(user).Elem()
	for i := range to.NumField() {
		if to.Type().Field(i).IsExported() && to.Field(i).IsZero() {
			to.Field(i).Set(from.Field(i))
		}
	}
	if user.MinVersion != 0 {
		ours.MinVersion = user.MinVersion
	}
	protos := slices.Clone(user.NextProtos)
	for _, p := range ours.NextProtos {
		if !slices.Contains(protos, p) {
			protos = append(protos, p)
		}
	}
	ours.NextProtos = spoken(protos, srv)
}
