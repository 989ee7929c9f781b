package replica

import (
	"context"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A batch has a limit in bytes, but for a single command that is larger.
func TestBatchBytes(t *testing.T) {
	attemptOf := func(size int) *attempt { return &attempt{Proposal: Proposal{Entry: make([]byte, size)}} }
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
		var b batch
		fits := false
		for _, size := range test.sizes {
			fits = b.add(attemptOf(size))
		}
		if fits != test.fits {
			t.Errorf("%s: fits %v, want %v", test.name, fits, test.fits)
		}
		if sent := len(b.request().Proposals); sent != len(b.attempts) {
			t.Errorf("%s: %d of %d are sent", test.name, sent, len(b.attempts))
		}
	}
}

// A batch takes what waits while no call to the leader is free, up to its limits. What has no room
// begins the next one.
func TestGather(t *testing.T) {
	attemptOf := func(size int) *attempt { return &attempt{Proposal: Proposal{Entry: make([]byte, size)}} }
	many := make([]int, MaxBatch+1)
	for i := range many {
		many[i] = 1
	}
	for _, test := range []struct {
		name   string
		sizes  []int // of what waits, in this order
		first  int   // how many of them are in the first batch
		second int   // and how many in the second
	}{
		{"one", []int{1}, 1, 0},
		{"some", []int{1, 1, 1}, 3, 0},
		{"more than a batch", many, MaxBatch, 1},
		{"more bytes than a batch", []int{1, batchBytes, 1}, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				p := &Proposer{queue: make(chan *attempt)}
				go func() {
					for _, size := range test.sizes {
						select {
						case p.queue <- attemptOf(size):
						case <-ctx.Done():
							return
						}
					}
				}()
				slots := make(chan struct{}) // no call is free until somebody receives
				gathered := make(chan *batch)
				go func() {
					var next *attempt
					for b := new(batch); b != nil; {
						b, next = p.gather(ctx, next, slots)
						gathered <- b
					}
				}()
				for i, want := range []int{test.first, test.second} {
					synctest.Wait()
					if want == 0 {
						break
					}
					<-slots
					if b := <-gathered; len(b.attempts) != want {
						t.Errorf("batch %d has %d attempts, want %d", i, len(b.attempts), want)
					}
				}
				cancel()
				if b := <-gathered; b != nil {
					t.Errorf("after the end there is a batch of %d", len(b.attempts))
				}
			})
		})
	}
}
