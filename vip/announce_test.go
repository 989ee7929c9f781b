package vip

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// trial runs cfg on a fake place, after prepare if that is not nil, and a fake cluster, until the returned function is called.
func trial(t *testing.T, cfg Config, prepare func(*fakePlace)) (p *fakePlace, c *fakeCluster, events *told, end func()) {
	t.Helper()
	p, c, events = newFakePlace(), newFakeCluster(), new(told)
	if prepare != nil {
		prepare(p)
	}
	cfg.Addr, cfg.Binder = netip.MustParsePrefix("192.0.2.1/24"), p
	cfg.Notify = events.add
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Run(ctx, c, cfg) }()
	return p, c, events, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// announcedWithin counts the announcements of a period.
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

// An address is announced for as long as it is here: so often in the first minute that a port which begins to forward at any time is no long outage,
// and every minute afterwards.
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

// What may leave neighbours with a wrong entry has the address announced at once, and then as at the beginning; and a storm of such events is
// no storm of announcements.
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

// A claim by another machine is answered once in ten seconds, told of, and in the status until it has been quiet for a while.
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
		for _, e := range events.list() {
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

// With Yield the first claim is answered, a second within ten seconds ends the tenure, and the node is away for ten seconds and then for a minute. One
// who only asks for the address takes nothing.
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
