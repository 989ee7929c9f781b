package balancers

import (
	"syscall"
	"testing"
	"time"
)

// Each node in turn gets SIGTERM, ends, and comes back. Meanwhile clients send requests through
// HAProxy, through nginx, and directly. None fails.
func TestRollingRestart(t *testing.T) {
	cl := startCluster(t, "")
	loads := cl.startLoads(t, fresh, kept, h2)
	begun := time.Now()
	more(t, loads, 20)
	for _, m := range cl.nodes {
		m.signal(t, syscall.SIGTERM)
		m.awaitEnd(t)
		more(t, loads, 20)
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
		cl.awaitServing(t, m)
		more(t, loads, 20)
		moreBy(t, loads, m.Name())
	}
	took := time.Since(begun)
	for _, l := range loads {
		l.stop()
		answered, nodes, failed := l.total()
		t.Logf("%s: %v answered in %.1f s, by %v", l.way.name, answered, took.Seconds(), nodes)
		if len(nodes) != len(cl.nodes) {
			t.Errorf("%s: only %v answered", l.way.name, nodes)
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
		took := bad.ended.Sub(bad.begun).Round(time.Millisecond)
		t.Errorf("%s, %s: failed after %s: %v", l.way.name, bad.kind, took, bad.err)
	}
}

// A node is killed. Before any balancer notices, a refused connection goes to another node.
// Requests that the node had are lost.
func TestKill(t *testing.T) {
	cl := startCluster(t, "")
	loads := cl.startLoads(t, fresh, kept, h2)
	more(t, loads, 20)
	for _, m := range cl.nodes {
		m.Kill()
		killed := time.Now()
		cl.awaitState(t, m, "DOWN", "L4CON")
		noticed := time.Now()
		t.Logf("%s killed; HAProxy noticed after %s", m.Name(), noticed.Sub(killed).Round(time.Millisecond))
		more(t, loads, 20)
		for _, l := range loads {
			t.Logf("%s: %d requests of it were lost", l.way.name, l.lost(t, killed, noticed))
		}
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
		cl.awaitServing(t, m)
		moreBy(t, loads, m.Name())
	}
}
