package datagram

import (
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// AskInterval is the time between two questions whether the peer is there.
const AskInterval = time.Second

// proofTime is how long an answer to a datagram stands for an answer to a question. It is longer
// than the longest pause between two renewals of a lease, so that no question is asked at rest. It
// is shorter than AskInterval, so that a dead path is noticed no later.
const proofTime = 3 * AskInterval / 4

// writer sends what is in a queue over one connection.
type writer struct {
	cfg   Config
	id    string
	c     *peerconn.Conn
	queue *queue
	ended chan struct{} // closed when c is

	mu    sync.Mutex
	asked bool      // the peer has not answered yet; until then c has a read deadline
	last  time.Time // the last question
}

func newWriter(cfg Config, id string, c *peerconn.Conn, q *queue) *writer {
	w := &writer{cfg: cfg, id: id, c: c, queue: q, ended: make(chan struct{})}
	c.AtClose(func() { close(w.ended) })
	return w
}

// run sends until the connection ends, and closes it.
func (w *writer) run() {
	defer w.c.Close()
	if !w.cfg.Life.Go(w.listen) {
		return
	}
	var frames []byte
	for {
		select {
		case <-w.ended:
			return
		default:
		}
		if frames = w.queue.take(frames); len(frames) == 0 {
			select {
			case <-w.queue.wake:
			case <-w.ended:
			}
			continue
		}
		now := time.Now()
		if w.ask(now) {
			frames = frame{ask: true}.encode(frames)
		}
		w.c.SetWriteDeadline(now.Add(w.cfg.Timeout))
		if _, err := w.c.Write(frames); err != nil {
			return
		}
	}
}

// ask reports whether it is time to ask, and begins to wait for the answer if so.
func (w *writer) ask(now time.Time) bool {
	if now.Sub(w.cfg.Peers.DatagramContact(w.id)) < proofTime {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked || now.Sub(w.last) < AskInterval {
		return false
	}
	w.asked, w.last = true, now
	w.c.SetReadDeadline(now.Add(w.cfg.Timeout / 4))
	return true
}

// answered ends the wait for an answer, and reports whether there was a question.
func (w *writer) answered() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.asked {
		return false
	}
	w.asked = false
	w.c.SetReadDeadline(time.Time{})
	return true
}

// listen reads the peer's answers. It notices at once when the peer's process ends, and closes the
// connection.
func (w *writer) listen() {
	defer w.c.Close()
	var b [1]byte
	for {
		if _, err := w.c.Read(b[:]); err != nil || b[0] != frameHere || !w.answered() {
			return
		}
		w.cfg.Peers.Observe(w.id)
	}
}
