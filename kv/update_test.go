package kv

import (
	"context"
	"errors"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// Callers have their turns in the order in which they came, for each name apart. One that gives up
// leaves its place.
func TestQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queues
		leave, err := q.enter(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		other, err := q.enter(t.Context(), "y") // does not wait
		if err != nil {
			t.Fatal(err)
		}
		other()
		order := make(chan int, 3)
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 3 {
			waits := t.Context()
			if i == 1 {
				waits = ctx
			}
			go func() {
				leave, err := q.enter(waits, "x")
				if i == 1 {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("the one that gives up: %v, want context.Canceled", err)
					}
					return
				}
				order <- i
				<-release
				leave()
			}()
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		if len(order) != 0 {
			t.Fatal("two have their turn at once")
		}
		leave()
		synctest.Wait()
		if got := <-order; got != 0 || len(order) != 0 {
			t.Errorf("the next one is %d, and %d more", got, len(order))
		}
		release <- struct{}{}
		if got := <-order; got != 2 {
			t.Errorf("then comes %d", got)
		}
		release <- struct{}{}
		synctest.Wait()
		if len(q.waiting) != 0 {
			t.Errorf("%d queues are left", len(q.waiting))
		}
	})
}
