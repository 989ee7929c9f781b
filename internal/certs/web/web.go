package web

import (
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/hostname"
	"github.com/flotilla-ha/flotilla/internal/meter"
)

// Config is what handlers need. All fields are required.
type Config struct {
	Issuers []certmagic.Issuer // whose challenges are answered
	// reports whether a record that is missing here is missing in the cluster
	Current     func() bool
	Manages     func(name string) bool // reports whether the node obtains certificates for name
	Serves      func(name string) bool // reports whether the node has a valid certificate for name
	Development bool                   // redirects lead to the node's own port, and HSTS is not set
	Status      int                    // of redirects
	Log         *slog.Logger           // required

	// HTTP-01 challenges that were answered, and those that no order waits for.
	Answered, Unknown *meter.Counter
}

// Handlers makes HTTP handlers. Its methods, and its handlers, are safe for concurrent use.
type Handlers struct {
	Config
	port atomic.Int32 // of the TLS listener; 0: not known
}

// New returns handlers.
func New(cfg Config) *Handlers { return &Handlers{Config: cfg} }

// ServedAt says at which port TLS is served, for redirects in development mode.
func (h *Handlers) ServedAt(port int) { h.port.Store(int32(port)) }

// HTTP answers the HTTP-01 challenges of every node and passes all other requests to next. Nil next
// redirects them to https.
func (h *Handlers) HTTP(next http.Handler) http.Handler {
	if next == nil {
		next = http.HandlerFunc(h.redirect)
	}
	for _, i := range h.Issuers {
		// One is enough: it looks for the token of every issuer of the configuration.
		if acme, ok := i.(*certmagic.ACMEIssuer); ok && !acme.DisableHTTPChallenge {
			return onlyHosts(h.challenges(acme, next), next)
		}
	}
	return next
}

// onlyHosts passes requests without a valid Host to next. The challenge handler would look for that
// Host in the storage.
func onlyHosts(challenges, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := hostname.OfRequest(r); !ok {
			next.ServeHTTP(w, r)
			return
		}
		challenges.ServeHTTP(w, r)
	})
}

// challenges answers challenges. It refuses those whose token is not here while the node's state
// may be out of date.
func (h *Handlers) challenges(acme *certmagic.ACMEIssuer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !certmagic.LooksLikeHTTPChallenge(r) {
			next.ServeHTTP(w, r)
			return
		}
		if acme.HandleHTTPChallenge(w, r) {
			h.Answered.Inc()
			return
		}
		if !h.Current() { // so it may be known elsewhere
			w.Header().Set("Retry-After", "1")
			http.Error(w, "flotilla: this node has no lease and does not know all tokens; ask another one", http.StatusServiceUnavailable)
			return
		}
		h.Unknown.Inc()
		next.ServeHTTP(w, r)
	})
}
