package applied

import (
	"context"
	"errors"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

func at(index uint64) *state.State {
	s := state.New()
	s.Index = index
	return s
}

// Wait returns the newest state, even if it has skipped others.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		if s.State().Index != 0 {
			t.Fatalf("a new store is at %d", s.State().Index)
		}
		done := make(chan *state.State, 1)
		go func() {
			found, err := s.Wait(t.Context(), func(s *state.State) bool { return s.Index >= 2 })
			if err != nil {
				t.Error(err)
			}
			done <- found
		}()
		synctest.Wait()
		s.Publish(at(1))
		synctest.Wait()
		if len(done) > 0 {
			t.Fatal("it returns too early")
		}
		s.Publish(at(2))
		s.Publish(at(3))
		if found := <-done; found.Index < 2 {
			t.Errorf("it returns the state at %d", found.Index)
		}
		if found, err := s.Wait(t.Context(), func(*state.State) bool { return true }); err != nil || found != s.State() {
			t.Errorf("without a condition it returns %v, %v", found, err)
		}
	})
}

// Wait ends with its context, and returns the cause.
func TestWaitEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("a cause")
	cancel(cause)
	if found, err := New().Wait(ctx, func(*state.State) bool { return false }); found != nil || err != cause {
		t.Errorf("it returns %v, %v", found, err)
	}
}

// Next is closed by the next publication, and not by an earlier one.
func TestNext(t *testing.T) {
	s := New()
	s.Publish(at(1))
	next := s.Next()
	select {
	case <-next:
		t.Fatal("it is closed before a publication")
	default:
	}
	s.Publish(at(2))
	<-next
}
