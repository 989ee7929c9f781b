package balancers

import (
	"syscall"
	"testing"
	"time"
)

// Each node in its turn is told to end by SIGTERM, ends, and comes back, while clients send requests through HAProxy, through nginx, and with
// nothing between. None fails.
func TestRollingRestart(t *testing.T) {
	f := startFleet(t, "")
	loads := f.startLoads(t, fresh, kept, h2)
	begun := time.Now()
	more(t, loads, 20)
	for _, m := range f.nodes {
		m.signal(t, syscall.SIGTERM)
		m.awaitEnd(t)
		more(t, loads, 20)
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
		f.awaitServing(t, m)
		more(t, loads, 20)
		moreBy(t, loads, m.settings.Name)
	}
	took := time.Since(begun)
	for _, l := range loads {
		l.stop()
		answered, nodes, failed := l.total()
		t.Logf("%s: %v answered in %.1f s, by %v", l.way.name, answered, took.Seconds(), nodes)
		if len(nodes) != len(f.nodes) {
			t.Errorf("%s: only %v have answered", l.way.name, nodes)
		}
		report(t, l, failed)
	}
	if missing := missingNginx(); missing != "" {
		t.Skip(missing)
	}
}

// report fails the test for each request that failed.
func report(t *testing.T, l *load, failed []failure) {
	t.Helper()
	for i, bad := range failed {
		if i == 5 {
			t.Errorf("and %d more", len(failed)-i)
			return
		}
		t.Errorf("%s, %s: failed after %s: %v", l.way.name, bad.kind, bad.ended.Sub(bad.begun).Round(time.Millisecond), bad.err)
	}
}

// A node is killed, and nobody has noticed yet: where a connection is refused, another node is taken. What was on the node itself is lost.
func TestKill(t *testing.T) {
	f := startFleet(t, "")
	loads := f.startLoads(t, fresh, kept, h2)
	more(t, loads, 20)
	for _, m := range f.nodes {
		m.kill()
		killed := time.Now()
		f.awaitState(t, m, "DOWN", "L4CON")
		noticed := time.Now()
		t.Logf("%s killed; HAProxy knew after %s", m.settings.Name, noticed.Sub(killed).Round(time.Millisecond))
		more(t, loads, 20)
		for _, l := range loads {
			t.Logf("%s: %d requests on it were lost", l.way.name, l.lost(t, killed, noticed))
		}
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
		f.awaitServing(t, m)
		moreBy(t, loads, m.settings.Name)
	}
}
