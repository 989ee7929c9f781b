package datagram

import (
	"context"
	"time"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// Pauses between two dials.
const (
	steady       = time.Second            // a connection that ends earlier counts as a failed dial
	MinPause     = 50 * time.Millisecond  // after the first failed dial
	MaxPause     = 100 * time.Millisecond // the pause doubles up to this
	refusedPause = 500 * time.Millisecond // the same for a peer that is there and takes no datagrams
)

// sender makes the connections to one peer. It runs while there is something to send or a
// connection.
type sender struct {
	cfg   Config
	id    string
	queue *queue

	// Of run alone.
	pause time.Duration // the last one; 0 after success
	eager bool          // the last one could be cut short
}

func newSender(cfg Config, id string) *sender { return &sender{cfg: cfg, id: id, queue: newQueue()} }

func (s *sender) send(data []byte) {
	if s.queue.put(data) {
		s.cfg.Life.Go(s.run)
	}
}

// run dials and sends. It drops what has waited for a failed dial or for a connection that ended.
func (s *sender) run() {
	for {
		start := time.Now()
		c, err := s.cfg.Dialer.Node(context.Background(), s.id, peerconn.Datagrams)
		if err == nil {
			newWriter(s.cfg, s.id, c, s.queue).run()
		} else {
			s.cfg.Logger.Debug("no connection for datagrams", "peer", s.id, "error", err)
		}
		s.queue.take(nil)
		if err == nil && time.Since(start) >= steady {
			s.pause, s.eager = 0, false
		} else {
			limit := refusedPause
			if err != nil && !peerconn.Unwilling(err) {
				limit = MaxPause
			}
			s.wait(start, limit)
		}
		if s.cfg.Life.Ended() || s.queue.rest() {
			return
		}
	}
}

// wait pauses after a dial that began at start and failed. If the peer is seen meanwhile it is
// probably back, and the pause ends. That does not happen twice in a row, because some peers reach
// us and cannot be reached.
func (s *sender) wait(start time.Time, limit time.Duration) {
	s.pause = min(max(2*s.pause, MinPause), limit)
	s.eager = !s.eager
	var up <-chan struct{}
	if s.eager {
		up = s.cfg.Peers.Up(s.id)
	}
	timer := time.NewTimer(max(s.pause-time.Since(start), MinPause))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-up:
	case <-s.cfg.Life.Done():
	}
}
