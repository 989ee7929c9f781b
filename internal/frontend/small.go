package frontend

import (
	"container/list"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
)

// Limits of the http.Servers for redirects, challenges and health, whose requests and answers are
// small.
const (
	smallTimeout  = 10 * time.Second // for a whole request, and for an answer
	smallIdle     = 30 * time.Second
	smallHeader   = 16 << 10
	smallMaxConns = 4096
)

// smallServer returns an http.Server for requests that take no more than seconds. refused counts
// the connections that are too many.
func smallServer(h http.Handler, log *slog.Logger, refused *meter.Counter) *http.Server {
	return &http.Server{
		Handler:        h,
		ReadTimeout:    smallTimeout,
		WriteTimeout:   smallTimeout,
		IdleTimeout:    smallIdle,
		MaxHeaderBytes: smallHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState:      newMaxConns(min(smallMaxConns, openFiles()/8), refused).onState,
	}
}

// maxConns bounds the connections of an http.Server whose requests are short. When there is one
// more, it closes the connection whose last change of state is the oldest. Without it silent
// connections, which stay for seconds each, could use up all descriptors.
type maxConns struct {
	max     int
	refused *meter.Counter // those that were closed

	mu     sync.Mutex
	order  list.List // of net.Conn, the oldest in front
	places map[net.Conn]*list.Element
}

func newMaxConns(limit int, refused *meter.Counter) *maxConns {
	return &maxConns{max: max(1, limit), refused: refused, places: map[net.Conn]*list.Element{}}
}

// onState is for http.Server.ConnState.
func (m *maxConns) onState(conn net.Conn, s http.ConnState) {
	if oldest := m.move(conn, s); oldest != nil {
		m.refused.Inc()
		oldest.Close()
	}
}

// move records a change of state, and returns the connection to close, or nil.
func (m *maxConns) move(conn net.Conn, s http.ConnState) (oldest net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	place := m.places[conn]
	switch s {
	case http.StateNew:
		if m.order.Len() >= m.max {
			oldest = m.order.Remove(m.order.Front()).(net.Conn)
			delete(m.places, oldest)
		}
		m.places[conn] = m.order.PushBack(conn)
	case http.StateActive, http.StateIdle:
		if place != nil {
			m.order.MoveToBack(place)
		}
	default:
		if place != nil {
			m.order.Remove(place)
			delete(m.places, conn)
		}
	}
	return oldest
}
