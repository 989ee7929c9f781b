package page

import (
	"context"
	"net/http"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// Config is what a Page needs.
type Config struct {
	// Look asks all nodes and returns the cluster as they describe it. It may take seconds when a node
	// is away.
	Look func(ctx context.Context) (*view.Cluster, error)

	// Events returns the events of all nodes that answer, joined, the oldest first.
	Events func(ctx context.Context) []event.Event

	// Changed returns a channel that is closed when the page should be made anew at once. It is made
	// anew every ten seconds in any case.
	Changed func() <-chan struct{}

	// Self is the ID of this node.
	Self func() string

	// Closed is closed when the node closes: updates end then. Nil: they end with their requests only.
	Closed <-chan struct{}

	// Now is the wall clock, for what the page says. Nil is time.Now.
	Now func() time.Time
}

// Page serves the status page of a node. It serves the paths "/" and "/page/updates".
type Page struct {
	shared   *shared
	renderer *renderer
	viewers  *viewers
	closed   <-chan struct{}
	mux      *http.ServeMux
}

// New returns the page of a node.
func New(cfg Config) *Page {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := newRenderer()
	p := &Page{
		shared: newShared(cfg, r), renderer: r, viewers: &viewers{free: maxViewers}, closed: cfg.Closed,
		mux: http.NewServeMux(),
	}
	p.mux.HandleFunc("GET /{$}", p.document)
	p.mux.HandleFunc("GET /page/updates", p.updates)
	return p
}

// ServeHTTP serves the document and its updates.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

// document serves the whole page.
func (p *Page) document(w http.ResponseWriter, r *http.Request) {
	seen, err := p.shared.get(r.Context())
	if err != nil {
		return // the client is gone
	}
	h := w.Header()
	p.harden(h)
	h.Set("Content-Type", "text/html; charset=utf-8")
	p.renderer.document(w, seen)
}

// harden sets the headers that keep the page to itself.
func (p *Page) harden(h http.Header) {
	h.Set("Content-Security-Policy", p.renderer.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}
