package replica

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A batch has a limit in bytes, but for a single command that is larger. What has no room begins
// the next batch.
func TestBatchBytes(t *testing.T) {
	for _, test := range []struct {
		name  string
		sizes []int
		fits  bool // the last one
	}{
		{"one", []int{1}, true},
		{"a large one alone", []int{2 * batchBytes}, true},
		{"exactly", []int{batchBytes - 1, 1}, true},
		{"one byte more", []int{batchBytes - 1, 2}, false},
		{"after a large one", []int{2 * batchBytes, 1}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b batch
			for _, size := range test.sizes {
				b.add(&attempt{Proposal: Proposal{Entry: make([]byte, size)}})
			}
			inFirst, inSecond := len(test.sizes), 0
			if !test.fits {
				inFirst, inSecond = inFirst-1, 1
			}
			next := b.next()
			if len(b.proposals()) != inFirst || len(next.proposals()) != inSecond {
				t.Errorf("the batches have %d and %d commands, want %d and %d", len(b.proposals()), len(next.proposals()), inFirst, inSecond)
			}
			if b.full() == test.fits {
				t.Errorf("the first batch is full: %v", b.full())
			}
		})
	}
}

// deliveries takes batches and keeps them under way until they are let go.
type deliveries struct {
	left chan int   // the sizes of batches that have left
	over chan error // ends one of them
}

func (d *deliveries) deliver(ctx context.Context, b *batch) error {
	d.left <- len(b.attempts)
	select {
	case err := <-d.over:
		return err
	case <-ctx.Done():
		return errUnknown
	}
}

// sizes returns the sizes of the batches that have left since the last call.
func (d *deliveries) sizes() (all []int) {
	synctest.Wait()
	for len(d.left) > 0 {
		all = append(all, <-d.left)
	}
	return all
}

// A batch leaves when it has as many commands as are under way, or is full.
func TestBatches(t *testing.T) {
	const patience = time.Second
	type step struct {
		waiting int // how many commands come along that wait already
		arrive  int // how many arrive then, one after the other
		end     int // how many batches end before that
		pause   time.Duration
		leave   []int
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"a command of an idle node does not wait", []step{{arrive: 1, leave: []int{1}}}},
		{"a busy node makes fewer and larger batches", []step{{arrive: 3, leave: []int{1, 1}}, {arrive: 1, leave: []int{2}}, {arrive: 4, leave: []int{4}}}},
		{"not too many are under way", []step{{arrive: 100, leave: []int{1, 1, 2, 4}}, {end: 1, leave: []int{MaxBatch}}}},
		{"a command waits for others for a moment only", []step{{arrive: 3, pause: patience - 1, leave: []int{1, 1}}, {pause: 1, leave: []int{1}}}},
		{"so do commands when many batches are stuck", []step{{arrive: 11, leave: []int{1, 1, 2, 4}}, {pause: patience, leave: []int{3}}}},
		{"the moment is that of the first of them", []step{{arrive: 3, pause: patience / 2, leave: []int{1, 1}}, {arrive: 0, pause: patience / 2, leave: []int{1}}, {arrive: 1, pause: patience / 2}, {arrive: 1, pause: patience / 2, leave: []int{2}}}},
		{"what waits comes along", []step{{waiting: 10, leave: []int{10}}}},
		{"the rest of a batch waits", []step{{waiting: MaxBatch + 1, leave: []int{MaxBatch}}, {end: 1, leave: []int{1}}}},
		{"a full batch need not be as large", []step{{waiting: 3 * MaxBatch, leave: []int{MaxBatch, MaxBatch, MaxBatch}}}},
		{"the next batch is as large as what is under way", []step{{waiting: 5, arrive: 4, leave: []int{5}}, {arrive: 1, leave: []int{5}}, {arrive: 4, end: 1}, {arrive: 1, leave: []int{5}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, life := batcher{make(chan *attempt)}, lifecycle.New()
				d := &deliveries{make(chan int, 100), make(chan error)}
				arrive := func(n int) {
					for range n {
						life.Tasks.Go(func() { _ = q.propose(life.Open, Proposal{}) })
					}
					synctest.Wait()
				}
				arrive(test.steps[0].waiting)
				life.Tasks.Go(func() { q.run(life.Open, life, patience, d.deliver) })
				synctest.Wait()
				for i, step := range test.steps {
					for range step.end {
						d.over <- nil
					}
					for range step.arrive {
						arrive(1)
					}
					time.Sleep(step.pause)
					if diff := cmp.Diff(step.leave, d.sizes()); diff != "" {
						t.Errorf("step %d: %s", i, diff)
					}
				}
				life.End(nil)
				life.Tasks.Close()
			})
		})
	}
}

// A command gets the outcome of its batch, or learns that it is not known.
func TestOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, life := batcher{make(chan *attempt)}, lifecycle.New()
		d := &deliveries{make(chan int, 100), make(chan error)}
		life.Tasks.Go(func() { q.run(life.Open, life, time.Second, d.deliver) })
		outcome, cause := make(chan error, 1), errors.New("refused")
		propose := func(ctx context.Context) { outcome <- q.propose(ctx, Proposal{}) }
		for _, want := range []error{nil, cause} {
			go propose(t.Context())
			d.over <- want
			if got := <-outcome; got != want {
				t.Errorf("the outcome is %v, want %v", got, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		go propose(ctx)
		synctest.Wait()
		cancel()
		if got := <-outcome; got != errUnknown {
			t.Errorf("when nobody waits any more the outcome is %v", got)
		}
		life.End(nil)
		if got := q.propose(ctx, Proposal{}); got != errUnknown {
			t.Errorf("at the end the outcome is %v", got)
		}
		life.Tasks.Close()
	})
}
