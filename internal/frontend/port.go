package frontend

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/meter"
)

// Port is a listener with the http.Server that serves it. A Server makes it. Its methods are safe
// for concurrent use.
type Port struct {
	ln      *Listener
	accept  net.Listener // ln, or what wraps it
	srv     *http.Server
	drainer *drainer
	closed  func(*Port)
}

// newPort puts a drainer into srv, which must not be serving yet. cut counts what drains cut. Close
// calls closed.
func newPort(
	ln *Listener, accept net.Listener, srv *http.Server, log *slog.Logger, cut *meter.Counter, closed func(*Port),
) *Port {
	log = log.With("listener", ln.Addr().String())
	return &Port{ln: ln, accept: accept, srv: srv, drainer: newDrainer(srv, ln, log, silentTimeout, cut), closed: closed}
}

// Addr returns the address that the port listens at.
func (p *Port) Addr() net.Addr { return p.ln.Addr() }

// Serve serves clients until the port ends, and returns why it has ended. The caller calls it once.
// The error is an *errs.ConfigError if the http.Server was shut down. Drain and Close shut it down,
// and no other code may.
func (p *Port) Serve() error {
	err := p.srv.Serve(p.accept)
	if errors.Is(err, http.ErrServerClosed) {
		return &errs.ConfigError{
			Field:  "Server",
			Reason: "it has been shut down; it serves once, and ends with the context of Serve",
			Err:    err,
		}
	}
	return err
}

// Drain ends the port without losing a request. It accepts every connection that the kernel has
// completed, refuses new ones, waits until every request has its answer, and shuts the http.Server
// down. Serve must be running. When ctx ends first, Drain cuts the requests that are left, and
// returns an error that says how many. An error may also mean that a connection was lost. The
// http.Server is shut down in any case.
func (p *Port) Drain(ctx context.Context) error { return p.drainer.drain(ctx) }

// Close closes the listener and all connections at once, except hijacked ones.
func (p *Port) Close() {
	p.closed(p)
	p.srv.Close()
	p.ln.Close()
}
