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
	ways := []way{f.haproxy(), f.roundRobin()}
	if missingNginx() == "" {
		ways = append(ways, f.nginx())
	}
	var loads []*load
	for _, w := range ways {
		loads = append(loads, f.startLoad(t, w, fresh, kept, h2))
	}
	more := func() {
		for _, l := range loads {
			l.more(t, 20)
		}
	}
	begun := time.Now()
	more()
	for _, m := range f.nodes {
		m.signal(t, syscall.SIGTERM)
		m.awaitEnd(t)
		more()
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
		f.awaitServing(t, m)
		more()
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

// A node is killed, and HAProxy has not noticed yet: it takes another when a connection is refused. What was on the node itself is lost.
func TestKill(t *testing.T) {
	f := startFleet(t, "")
	l := f.startLoad(t, f.haproxy(), fresh, kept, h2)
	l.more(t, 20)
	for _, m := range f.nodes {
		_, _, before := l.total()
		m.kill()
		killed := time.Now()
		f.awaitState(t, m, "DOWN", "L4CON")
		down := time.Since(killed)
		l.more(t, 20)
		_, _, failed := l.total()
		failed = failed[len(before):]
		t.Logf("%s killed: %d requests on it were lost; HAProxy knew after %s", m.settings.Name, len(failed), down.Round(time.Millisecond))
		for _, bad := range failed {
			if bad.kind == fresh && bad.begun.After(killed) {
				t.Errorf("a new connection failed after %s: %v", bad.ended.Sub(bad.begun), bad.err)
			}
		}
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
		f.awaitServing(t, m)
	}
}
