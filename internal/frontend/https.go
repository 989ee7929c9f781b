package frontend

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

// Limits of an http.Server for HTTPS that the user has not set. The doc of Config.Server names
// them.
const (
	headerTimeout = 10 * time.Second // for a TLS handshake, and for a request's header
	idleTimeout   = 2 * time.Minute  // between requests
	maxHeader     = 64 << 10
	// HTTP/2: how long a client is silent before the server sends it a ping
	sendPingTimeout = 30 * time.Second
	pingTimeout     = 15 * time.Second // HTTP/2: for the answer to a ping
	byteTimeout     = 30 * time.Second // HTTP/2: for one byte to be written
)

// HTTPS is what a port for HTTPS serves.
type HTTPS struct {
	// Server is the user's http.Server. Nil: the port makes one. A limit that is zero gets a default.
	Server *http.Server

	// Handler replaces the handler of Server, unless Handler is nil.
	Handler http.Handler

	// TLS has the certificates and answers challenges. The port adds what Server.TLSConfig sets, in
	// place.
	TLS *tls.Config

	// Context returns what the contexts of all requests derive from, given what they would derive from
	// otherwise. Nil: they derive from that.
	Context func(context.Context) context.Context

	// Bind is called with each further configuration that a handshake may get, so that its session
	// tickets can be bound to it.
	Bind func(*tls.Config)
}

// server returns the http.Server, complete.
func (o *HTTPS) server(log *slog.Logger) (*http.Server, error) {
	srv := o.Server
	if srv == nil {
		srv = new(http.Server)
	}
	if _, used := srv.Handler.(*drainHandler); used {
		return nil, &errs.ConfigError{
			Field:  "Server",
			Reason: "it has served before; give every node, and every call of Serve, an http.Server of its own",
		}
	}
	if o.Handler != nil {
		srv.Handler = o.Handler
	}
	if srv.ReadTimeout <= 0 { // net/http uses it for the two below where they are zero
		setDefault(&srv.ReadHeaderTimeout, headerTimeout)
		setDefault(&srv.IdleTimeout, idleTimeout)
	}
	setDefault(&srv.MaxHeaderBytes, maxHeader)
	withContext(srv, o.Context)
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
		mergeTLS(o.TLS, user, srv, o.Bind)
	} else {
		o.TLS.NextProtos = enabledProtocols(o.TLS.NextProtos, srv)
	}
	srv.TLSConfig = o.TLS // where net/http looks for h2
	return srv, nil
}

// withContext has the contexts of all requests derive from what derive returns. BaseContext and
// ConnContext of the user's server are called as usual.
func withContext(srv *http.Server, derive func(context.Context) context.Context) {
	if derive == nil {
		return
	}
	user := srv.BaseContext
	srv.BaseContext = func(ln net.Listener) context.Context {
		base := context.Background()
		if user != nil {
			base = user(ln)
		}
		if base == nil {
			return nil // net/http panics, and names the user's function as the reason
		}
		return derive(base)
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
