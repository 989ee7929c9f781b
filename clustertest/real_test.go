package clustertest_test

import (
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The same calls work in real time, on the network in memory and on real sockets: nodes die, come
// back and are added, and no request of the clients fails when they are restarted in turn.
func TestRealTime(t *testing.T) {
	skipShort(t)
	for name, loopback := range map[string]bool{"memory": false, "loopback": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Parallel(t)
			c := clustertest.Start(t, clustertest.Options{
				Nodes: 3, Loopback: loopback, Run: run,
				Configure: func(_ int, cfg *flotilla.Config) {
					cfg.Timing, cfg.Drain.Grace = flotilla.Fast, 100*time.Millisecond
				},
			})
			c.Settle()
			client := c.Client()
			if got := get(t, client, "https://api.test/"); got != "hello" {
				t.Errorf("https: %q", got)
			}
			if got := get(t, client, "http://api.test/"); got != "hello" { // by a redirect
				t.Errorf("http: %q", got)
			}
			if got := get(t, c.Balancer().Client(), "https://api.test/"); got != "hello" {
				t.Errorf("through a balancer: %q", got)
			}
			dead := c.Leader()
			c.Kill(dead)
			if _, err := tryGet(c.ClientOf(dead), "https://api.test/"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a dead node: %v", err)
			}
			c.Settle()
			if got := get(t, client, "https://api.test/"); got != "hello" {
				t.Errorf("after a death: %q", got)
			}
			c.Restart(dead)
			added := c.Add(func(_ int, cfg *flotilla.Config) {
				cfg.Timing, cfg.Drain.Grace = flotilla.Fast, 100*time.Millisecond
			})
			c.Settle()
			if !slices.Contains(c.Live(), added) {
				t.Error("the new node does not live")
			}
			dead = c.Leader()
			c.KillAt(dead, clustertest.BeforeSync)
			store(t, c.Nodes[(dead+1)%len(c.Nodes)], "k", "1")
			c.AwaitKill(dead)
			c.Restart(dead)
			c.Settle()
			wantEverywhere(t, c, "k", "1")
			stop := c.Load(client, "https://api.test/")
			for i := range c.Nodes {
				c.Stop(i)
				c.Restart(i)
				c.Settle()
			}
			t.Logf("%d requests were answered", stop())
		})
	}
}

// On loopback, clients see the address of their node.
func TestLoopbackAddresses(t *testing.T) {
	skipShort(t)
	c := clustertest.Start(t, clustertest.Options{Nodes: 1, Loopback: true})
	c.Serve(protocols)
	c.Settle()
	conn, err := transport(c.Client()).DialContext(t.Context(), "tcp", "api.test:443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if addr, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || !addr.IP.IsLoopback() || addr.String() != c.Config(0).HTTPSAddr {
		t.Errorf("it is connected to %v", conn.RemoteAddr())
	}
}

// The network of this machine has no faults to choose.
func TestLoopbackHasNoFaults(t *testing.T) {
	skipShort(t)
	for name, fault := range map[string]func(*clustertest.Cluster){
		"isolate": func(c *clustertest.Cluster) { c.Isolate(0) },
		"link":    func(c *clustertest.Cluster) { c.Link(0, 0) },
		"pause":   func(c *clustertest.Cluster) { c.Pause(0) },
	} {
		t.Run(name, func(t *testing.T) {
			f := &failing{TB: t, failed: make(chan struct{})}
			got := f.texts(func(t testing.TB) {
				fault(clustertest.Start(t, clustertest.Options{Nodes: 1, Loopback: true}))
			})
			if !strings.Contains(got, "leave Loopback out") {
				t.Errorf("the test says %q", got)
			}
		})
	}
}

// How long things take in real time. Nothing depends on it: -v shows it.
func TestFigures(t *testing.T) {
	skipShort(t)
	t.Run("kill", func(t *testing.T) {
		began := time.Now()
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.Run(t, 3, run)
			c.Settle()
			c.Kill(c.Leader())
			c.Settle()
			for _, i := range c.Live() {
				if got := get(t, c.ClientOf(i), "https://api.test/"); got != "hello" {
					t.Errorf("n%d answers %q", i, got)
				}
			}
		})
		t.Logf("kill, election and HTTPS on the survivors: %v", time.Since(began))
	})
	t.Run("half a minute", func(t *testing.T) {
		began, virtual := time.Now(), time.Duration(0)
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			c := clustertest.Run(t, 3, run)
			c.Settle()
			client := c.Client()
			for time.Since(start) < 30*time.Second {
				get(t, client, "https://api.test/")
				time.Sleep(time.Second)
			}
			virtual = time.Since(start)
		})
		took := time.Since(began)
		t.Logf("%v of virtual time: %v, %.0f times as fast", virtual, took, float64(virtual)/float64(took))
	})
}
