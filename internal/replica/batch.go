package replica

import (
	"context"
	"time"

	"github.com/flotilla-ha/flotilla/internal/lifecycle"
)

const (
	// MaxBatch is the largest number of commands in one batch.
	MaxBatch = 64

	batchBytes = 1 << 20 // of commands in one batch; a larger command goes alone
	maxBatches = 4       // under way at once
)

// attempt is one attempt to have a proposal committed.
type attempt struct {
	Proposal
	done chan error // its outcome; buffered
}

// batch is what goes to the leader at once. The zero value is empty.
type batch struct {
	attempts []*attempt
	size     int      // of their entries
	left     *attempt // had no room
}

// add adds an attempt. If there is no room for it, it begins the next batch. The batch must not be
// full.
func (b *batch) add(a *attempt) {
	if b.size > 0 && b.size+len(a.Entry) > batchBytes {
		b.left = a
		return
	}
	b.attempts = append(b.attempts, a)
	b.size += len(a.Entry)
}

// full reports whether no attempt may be added any more.
func (b *batch) full() bool { return len(b.attempts) >= MaxBatch || b.left != nil }

// next returns the batch that follows.
func (b *batch) next() (n batch) {
	if b.left != nil {
		n.add(b.left)
	}
	return n
}

// proposals returns what is proposed.
func (b *batch) proposals() []Proposal {
	all := make([]Proposal, len(b.attempts))
	for i, a := range b.attempts {
		all[i] = a.Proposal
	}
	return all
}

// load is what is under way to the leader.
type load struct{ batches, commands int }

func (l *load) begin(commands int) { l.batches, l.commands = l.batches+1, l.commands+commands }
func (l *load) end(commands int)   { l.batches, l.commands = l.batches-1, l.commands-commands }

// admits reports whether a batch may leave.
func (l *load) admits(b *batch) bool {
	return len(b.attempts) > 0 && l.batches < maxBatches && (b.full() || len(b.attempts) >= l.commands)
}

// batcher gathers commands in batches. Make its channel before use. Its methods are safe for
// concurrent use.
type batcher struct{ waiting chan *attempt }

// propose returns the outcome of one attempt to have a proposal committed.
func (q batcher) propose(ctx context.Context, proposal Proposal) error {
	a := &attempt{Proposal: proposal, done: make(chan error, 1)}
	select {
	case q.waiting <- a:
	case <-ctx.Done():
		return errUnknown
	}
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return errUnknown
	}
}

// run has what waits delivered in batches until ctx ends. A batch leaves when it has as many
// commands as are under way, or is full. So a command of an idle node does not wait, a busy node
// makes few large batches, and the leader replicates one while it applies another. What is under
// way may be stuck, so no batch waits for longer than patience.
func (q batcher) run(ctx context.Context, life *lifecycle.Life, patience time.Duration, deliver func(context.Context, *batch) error) {
	var b batch
	var load load
	var due <-chan time.Time // when b leaves in any case; nil: it is empty
	late := false            // that was before now
	ended := make(chan int)
	for ctx.Err() == nil {
		waiting := q.waiting
		if b.full() {
			waiting = nil
		}
		select { // what waits already comes along, even if the batch may leave
		case a := <-waiting:
			b.add(a)
			continue
		default:
		}
		if load.admits(&b) || late {
			due, late = nil, false
			leaving := b
			b = leaving.next()
			load.begin(len(leaving.attempts))
			life.Tasks.Go(func() {
				err := deliver(ctx, &leaving)
				for _, a := range leaving.attempts {
					a.done <- err
				}
				select {
				case ended <- len(leaving.attempts):
				case <-ctx.Done():
				}
			})
			continue
		}
		if due == nil && len(b.attempts) > 0 {
			due = time.After(patience)
		}
		select {
		case a := <-waiting:
			b.add(a)
		case n := <-ended:
			load.end(n)
		case <-due:
			late = true
		case <-ctx.Done():
		}
	}
}
