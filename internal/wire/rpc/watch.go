package rpc

import (
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// watch closes the connection of a call when its node is not heard any more, on whatever
// connection. It takes the place of pings while datagrams show that the node is there.
type watch struct {
	peers *peerconn.Table
	id    string // empty: the connection is not watched
	limit time.Duration

	mu    sync.Mutex
	timer *time.Timer
	ended bool
}

// start begins to watch a connection.
func (w *watch) start(c *peerconn.Conn) {
	if w.id == "" {
		return
	}
	began := time.Now()
	w.again(w.limit, func() (left time.Duration) {
		heard := w.peers.Contact(w.id)
		if heard.Before(began) {
			heard = began
		}
		if left = w.limit - time.Since(heard); left <= 0 {
			c.Close()
		}
		return left
	})
}

// again calls look after the pause, and again after the pause that it returns, unless that is not
// positive or stop was called.
func (w *watch) again(pause time.Duration, look func() time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.timer = time.AfterFunc(pause, func() {
		if left := look(); left > 0 {
			w.again(left, look)
		}
	})
}

// stop ends the watch.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.timer != nil {
		w.timer.Stop()
	}
}
