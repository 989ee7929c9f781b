package vip

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

var errCable = errors.New("the cable is on fire")

// A node that can find out that it cannot have the address does not claim it, says why, and claims it soon after the cause has gone.
func TestUnfitDoesNotClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, events, end := trial(t, Config{Priority: 5})
		p.checkErr = errCable
		defer end()
		time.Sleep(time.Hour)
		if len(c.asked) != 0 {
			t.Errorf("it has claimed the address %d times", len(c.asked))
		}
		if p.checks < 15 || p.checks > 25 {
			t.Errorf("it has looked %d times in an hour; want pauses that double up to five minutes", p.checks)
		}
		if len(*events) != 1 || !errors.Is((*events)[0].Err, errCable) || !strings.Contains(c.said(), errCable.Error()) {
			t.Errorf("events %v, status %q; want the cause once", *events, c.said())
		}
		p.change(func() { p.checkErr = nil })
		time.Sleep(time.Millisecond)
		if len(c.asked) != 1 || c.asked[0].Priority != 5 || c.asked[0].NoPreempt || p.binds != 1 || c.said() != "" {
			t.Errorf("after the cause has gone it asks %+v, and the status says %q", c.asked, c.said())
		}
	})
}

// A node whose attempt has failed for a reason that it cannot look for leaves the address to all others, until an attempt succeeds.
func TestUnfitIsHumble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, events, end := trial(t, Config{Priority: 5})
		p.bindErr = errCable
		defer end()
		time.Sleep(10 * time.Minute)
		if n := len(c.asked); n < 10 || n > 18 {
			t.Errorf("it has asked %d times in ten minutes; want pauses that double up to a minute", n)
		}
		for i, r := range c.asked[2:] { // the second may be better founded

			if r.Priority != math.MinInt || !r.NoPreempt {
				t.Fatalf("claim %d after a failure has the priority %d, NoPreempt %v", i+2, r.Priority, r.NoPreempt)
			}
		}
		if e := (*events)[0]; e.Kind != Failed || !errors.Is(e.Err, errCable) {
			t.Errorf("the first event is %v: %v", e.Kind, e.Err)
		}
		p.mu.Lock()
		p.bindErr = nil
		p.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if last := (*events)[len(*events)-1]; last.Kind != Bound {
			t.Errorf("the last event is %v: %v", last.Kind, last.Err)
		}
	})
}

// A failure while something changes, as when the interface goes down in that very moment, says nothing about the node afterwards.
func TestDisturbedIsNotUnfit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, _, end := trial(t, Config{Priority: 5})
		p.bindErr, p.disturbed = errCable, 3
		defer end()
		time.Sleep(time.Minute)
		for i, r := range c.asked {
			if r.Priority != 5 || r.NoPreempt {
				t.Fatalf("claim %d has the priority %d, NoPreempt %v", i, r.Priority, r.NoPreempt)
			}
		}
		if n := len(c.asked); n != 4 {
			t.Errorf("it has asked %d times, want three failures and one claim that is granted", n)
		}
	})
}
