package replica

import (
	"sync"
	"time"
)

// numbers counts the commands of this node's session, and knows which of them have no answer yet.
// The zero value is ready. Its methods are safe for concurrent use.
type numbers struct {
	mu      sync.Mutex
	session uint64               // that the fields below belong to
	last    uint64               // the number of the last command
	open    map[uint64]time.Time // commands without an answer yet, and since when
}

// begin returns the number of a new command, and the number up to which all answers have arrived.
// Both are 0 if the session is not the newest.
func (n *numbers) begin(session uint64) (seq, acked uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if session < n.session {
		return 0, 0 // the caller has seen an old state, and must not make the numbers start again
	}
	if n.session != session || n.open == nil {
		n.session, n.last, n.open = session, 0, make(map[uint64]time.Time)
	}
	n.last++
	acked = n.last - 1
	for seq := range n.open {
		acked = min(acked, seq-1)
	}
	n.open[n.last] = time.Now()
	return n.last, acked
}

// end notes that nobody waits for the answer to a command any more.
func (n *numbers) end(session, seq uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.session == session {
		delete(n.open, seq)
	}
}

// oldest returns how many commands wait for their answers, and since when the first of them does.
func (n *numbers) oldest() (waiting int, since time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, at := range n.open {
		if since.IsZero() || at.Before(since) {
			since = at
		}
	}
	return len(n.open), since
}
