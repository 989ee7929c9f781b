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

// A node whose Check fails does not claim the address and reports why. It claims the address soon
// after the cause has gone.
func TestUnfitDoesNotClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, events, end := trial(t, Config{Priority: 5}, func(p *fakePlace) { p.checkErr = errCable })
		defer end()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(c.asks()) != 0 {
			t.Errorf("it has claimed the address %d times", len(c.asks()))
		}
		if _, checks, _ := p.counts(); checks < 15 || checks > 25 {
			t.Errorf("it has looked %d times in an hour; want pauses that double up to five minutes", checks)
		}
		if len(events.get()) != 1 || !errors.Is(events.get()[0].Err, errCable) || !strings.Contains(c.said(), errCable.Error()) {
			t.Errorf("events %v, status %q; want the cause once", events.get(), c.said())
		}
		p.change(func() { p.checkErr = nil })
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if binds, _, _ := p.counts(); len(c.asks()) != 1 || c.asks()[0].Priority != 5 || c.asks()[0].NoPreempt || binds != 1 || c.said() != "" {
			t.Errorf("after the cause has gone it asks %+v, and the status says %q", c.asks(), c.said())
		}
	})
}

// A node whose attempt failed for a reason that Check does not see leaves the address to all
// others, until an attempt succeeds.
func TestUnfitIsHumble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, events, end := trial(t, Config{Priority: 5}, func(p *fakePlace) { p.bindErr = errCable })
		defer end()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(c.asks()); n < 10 || n > 18 {
			t.Errorf("it has asked %d times in ten minutes; want pauses that double up to a minute", n)
		}
		for i, r := range c.asks()[2:] { // the second attempt has the usual rank
			if r.Priority != math.MinInt || !r.NoPreempt {
				t.Fatalf("claim %d after a failure has the priority %d, NoPreempt %v", i+2, r.Priority, r.NoPreempt)
			}
		}
		if e := events.get()[0]; e.Kind != Failed || !errors.Is(e.Err, errCable) {
			t.Errorf("the first event is %v: %v", e.Kind, e.Err)
		}
		p.set(func() { p.bindErr = nil })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if last := events.last(); last.Kind != Bound {
			t.Errorf("the last event is %v: %v", last.Kind, last.Err)
		}
	})
}

// A failure while something changes, such as the interface going down at that moment, does not make
// the node unfit afterwards.
func TestDisturbedIsNotUnfit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, _, end := trial(t, Config{Priority: 5}, func(p *fakePlace) { p.bindErr, p.disturbed = errCable, 3 })
		defer end()
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, r := range c.asks() {
			if r.Priority != 5 || r.NoPreempt {
				t.Fatalf("claim %d has the priority %d, NoPreempt %v", i, r.Priority, r.NoPreempt)
			}
		}
		if n := len(c.asks()); n != 4 {
			t.Errorf("it has asked %d times, want three failures and one claim that is granted", n)
		}
	})
}
