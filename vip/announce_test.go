package vip

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// trial starts cfg on a fake place and a fake cluster. It calls prepare first, if that is not nil.
func trial(t *testing.T, cfg Config, prepare func(*fakePlace)) (p *fakePlace, c *fakeCluster, events *list[Event], end func()) {
	t.Helper()
	p, c, events = newFakePlace(), newFakeCluster(), new(list[Event])
	if prepare != nil {
		prepare(p)
	}
	cfg.Addr, cfg.Binder, cfg.Notify = netip.MustParsePrefix("192.0.2.1/24"), p, events.add
	return p, c, events, start(t, c, cfg)
}

// announcedWithin counts the announcements in a period.
func (p *fakePlace) announcedWithin(from, to time.Time) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.announced {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// An address is announced as long as it is here. In the first minute that is often enough for
// switch ports that begin to forward late; afterwards it is every minute.
func TestAnnouncedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p, _, _, end := trial(t, Config{}, nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		end()
		last := start
		for i, at := range p.announced {
			since, gap := at.Sub(start), at.Sub(last)
			if most := max(2*time.Second, since/3); since <= time.Minute && gap > most {
				t.Errorf("announcement %d, after %v, comes %v after the one before it", i, since, gap)
			}
			if gap > announceEvery {
				t.Errorf("announcement %d, after %v, comes %v after the one before it", i, since, gap)
			}
			last = at
		}
		if n := len(p.announced); n < 70 || n > 80 || start.Add(time.Hour).Sub(last) > announceEvery {
			t.Errorf("%d announcements in an hour, the last after %v", n, last.Sub(start))
		}
	})
}

// After an event that may leave neighbours with a wrong entry, the address is announced at once and
// then as at the beginning. Many such events do not cause as many announcements.
func TestAnnouncedAfterEvents(t *testing.T) {
	for name, event := range map[string]func(p *fakePlace, c *fakeCluster){
		"the interface is found elsewhere": func(p *fakePlace, _ *fakeCluster) { p.change(func() { p.moved = true }) },
		"a node is back":                   func(_ *fakePlace, c *fakeCluster) { c.back() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, c, _, end := trial(t, Config{}, nil)
				defer end()
				time.Sleep(10*time.Minute + 5*time.Second)
				synctest.Wait()
				at := time.Now()
				event(p, c)
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
				if n := p.announcedWithin(at, time.Now()); n != 1 {
					t.Fatalf("announced %d times at once, want 1", n)
				}
				time.Sleep(15 * time.Second)
				synctest.Wait()
				if n := p.announcedWithin(at, time.Now()); n < 9 {
					t.Errorf("announced %d times in the 15 s after it, want as many as at the beginning", n)
				}
				at = time.Now()
				for range 1000 {
					event(p, c)
					time.Sleep(time.Millisecond)
					synctest.Wait()
				}
				if n := p.announcedWithin(at, time.Now()); n < 5 || n > 11 {
					t.Errorf("announced %d times in a second of a thousand events, want about ten", n)
				}
			})
		})
	}
}

func foreign(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 9, last} }

// A claim by another machine is answered once in ten seconds and reported as an event. It is in the
// status until there was no claim for a while.
func TestDefend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, events, end := trial(t, Config{}, nil)
		defer end()
		time.Sleep(10*time.Minute + 5*time.Second)
		synctest.Wait()
		claim := &ConflictError{Addr: netip.MustParseAddr("192.0.2.1"), MAC: foreign(1)}
		at := time.Now()
		for range 25 { // seconds
			p.claims <- claim
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if n := p.announcedWithin(at, time.Now()); n != 3 {
			t.Errorf("announced %d times in 25 s of claims, want 3", n)
		}
		if said := c.said(); !strings.Contains(said, "02:00:00:00:09:01") {
			t.Errorf("the status says %q, want the other's hardware address", said)
		}
		conflicts := 0
		for _, e := range events.get() {
			if e.Kind == Conflict {
				conflicts++
			}
		}
		if conflicts != 1 {
			t.Errorf("%d events of the one conflict", conflicts)
		}
		p.claims <- &ConflictError{Addr: claim.Addr, MAC: foreign(2)}
		time.Sleep(time.Second)
		synctest.Wait()
		if last := events.last(); last.Kind != Conflict || !strings.Contains(last.Err.Error(), "02:00:00:00:09:02") {
			t.Errorf("the last event is %v, %v; want that of the second machine", last.Kind, last.Err)
		}
		time.Sleep(conflictOver)
		synctest.Wait()
		if said := c.said(); said != "" {
			t.Errorf("the status still says %q", said)
		}
		if _, _, unbound := p.counts(); unbound > 0 {
			t.Error("the address was given up")
		}
	})
}

// With Yield the first claim is answered. A second one within ten seconds ends the tenure: the node
// then does not compete for ten seconds, and after the next conflict for a minute. A machine that
// only asks for the address ends nothing.
func TestYieldToConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, events, end := trial(t, Config{Conflict: Yield}, nil)
		defer end()
		addr := netip.MustParseAddr("192.0.2.1")
		for range 5 {
			p.claims <- &ConflictError{Addr: addr, MAC: foreign(1), Probe: true}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		p.claims <- &ConflictError{Addr: addr, MAC: foreign(1)}
		time.Sleep(defendInterval + time.Second)
		synctest.Wait()
		p.claims <- &ConflictError{Addr: addr, MAC: foreign(1)}
		time.Sleep(time.Second)
		synctest.Wait()
		if _, _, unbound := p.counts(); unbound != 0 {
			t.Fatal("given up although no second claim came within ten seconds")
		}
		for _, pause := range []time.Duration{conflictPause, conflictMax} {
			asked := len(c.asks())
			p.claims <- &ConflictError{Addr: addr, MAC: foreign(1)}
			time.Sleep(time.Second)
			synctest.Wait()
			p.claims <- &ConflictError{Addr: addr, MAC: foreign(1)}
			time.Sleep(pause - 3*time.Second)
			synctest.Wait()
			if last := events.last(); len(c.asks()) != asked || last.Kind != Conflict {
				t.Errorf("the last event is %v, and the role was asked for again", last.Kind)
			}
			time.Sleep(4 * time.Second)
			synctest.Wait()
			if len(c.asks()) != asked+1 {
				t.Errorf("the role was asked for %d times more, want once after %v", len(c.asks())-asked, pause)
			}
		}
	})
}
