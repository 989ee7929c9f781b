package frontend

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

// Front is one server and its listener.
type Front struct {
	log    *slog.Logger
	Ln     *Listener
	accept net.Listener // ln, or what is on top of it
	srv    *http.Server
	Drain  *Drainer

	Done chan struct{} // closed when the server has ended
	Err  error         // why; read after done
}

// NewFront makes the front of a listener; use is to follow.
func NewFront(ln *Listener, log *slog.Logger) *Front {
	return &Front{Ln: ln, log: log.With("listener", ln.Addr().String()), Done: make(chan struct{})}
}

// Use gives the front its server.
func (f *Front) Use(srv *http.Server, accept net.Listener) {
	f.srv, f.accept = srv, accept
	f.Drain = NewDrainer(srv, f.log)
}

func (f *Front) Serve() {
	defer close(f.Done)
	f.Err = f.srv.Serve(f.accept)
	if errors.Is(f.Err, http.ErrServerClosed) {
		f.Err = &errs.ConfigError{Field: "Server", Reason: "it has been shut down; it serves once, and it is ended by the end of Serve's context", Err: f.Err}
	}
}

// Close ends what is left at once. That of nobody's front does nothing.
func (f *Front) Close() {
	if f.srv != nil {
		f.srv.Close()
	}
	if f.Ln != nil {
		f.Ln.Close()
	}
}

// Fronts are the servers that clients use at this moment. The zero fronts is ready.
type Fronts struct {
	mu  sync.Mutex
	all []*Front
}

func (fs *Fronts) Add(more ...*Front) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.all = append(fs.all, more...)
}

func (fs *Fronts) Remove(gone ...*Front) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.all = slices.DeleteFunc(fs.all, func(f *Front) bool { return slices.Contains(gone, f) })
}

func (fs *Fronts) List() []*Front {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return slices.Clone(fs.all)
}
