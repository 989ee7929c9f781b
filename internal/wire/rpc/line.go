package rpc

import (
	"net/http"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// peer is how this node calls another one.
type peer struct {
	pinged *line
	quiet  *line // without pings, for a node that is heard all the time
}

// line is a client of one node. It keeps one connection, and closes it when no call has used it for
// idleTime. http.Transport would dial another one idleTime after the first call, however many have
// followed: it notes only when a connection of HTTP/2 became idle for the first time.
type line struct {
	*http.Transport
	atRest func() // called when the connection is closed, and idleTime after a call

	mu    sync.Mutex
	conns int // that are open
	rest  *time.Timer
}

// used says that a call has ended.
func (l *line) used() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rest == nil {
		l.rest = time.AfterFunc(idleTime, func() {
			l.CloseIdleConnections()
			l.atRest()
		})
		return
	}
	l.rest.Reset(idleTime)
}

// opened counts a connection until it is closed.
func (l *line) opened(c *peerconn.Conn) {
	l.count(1)
	c.AtClose(func() {
		l.count(-1)
		l.atRest()
	})
}

func (l *line) count(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns += n
}

// isOpen reports whether there is a connection.
func (l *line) isOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns > 0
}
