package turns

import (
	"context"
	"slices"
	"sync"
	"time"
)

// table has the queues of the leader. The zero value is ready. It may have queues that are left
// from another term: they end by themselves.
type table struct {
	mu     sync.Mutex
	queues map[string][]*ticket // by name; the first ticket has its turn
}

// ticket is a node's place in a queue.
type ticket struct {
	node   string
	number uint64        // the node's own
	turn   chan struct{} // closed when it is the ticket's turn
	end    *time.Timer   // ends the turn; nil: it has not begun
}

// enter waits for a turn, which lasts for limit at most. If ctx ends first, the error is the cause.
func (t *table) enter(ctx context.Context, name, node string, number uint64, limit time.Duration) error {
	k := &ticket{node: node, number: number, turn: make(chan struct{})}
	t.mu.Lock()
	if t.queues == nil {
		t.queues = make(map[string][]*ticket)
	}
	t.queues[name] = append(t.queues[name], k)
	if len(t.queues[name]) == 1 {
		t.begin(name, k, limit)
	}
	t.mu.Unlock()
	select {
	case <-k.turn:
		return nil
	case <-ctx.Done():
		t.leave(name, node, number, limit)
		return context.Cause(ctx)
	}
}

// begin begins a turn. The caller holds mu.
func (t *table) begin(name string, k *ticket, limit time.Duration) {
	k.end = time.AfterFunc(limit, func() { t.leave(name, k.node, k.number, limit) })
	close(k.turn)
}

// leave takes a ticket out of its queue. If that had its turn, the next one has.
func (t *table) leave(name, node string, number uint64, limit time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.queues[name]
	i := slices.IndexFunc(q, func(k *ticket) bool { return k.node == node && k.number == number })
	if i < 0 {
		return
	}
	if end := q[i].end; end != nil {
		end.Stop()
	}
	q = slices.Delete(q, i, i+1)
	if t.queues[name] = q; len(q) == 0 {
		delete(t.queues, name)
	} else if i == 0 {
		t.begin(name, q[0], limit)
	}
}
