package balancers

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	fresh = "a new connection each" // HTTP/1.1
	kept  = "HTTP/1.1"
	h2    = "HTTP/2.0"

	clientsOfAKind = 2
	pause          = 15 * time.Millisecond // between two requests of one client
)

// load is clients that send requests without end, all of them POSTs, none of which is repeated.
type load struct {
	way    way
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex // guards the rest
	answered map[string]int
	nodes    map[string]int // answers of each
	failed   []failure
}

// failure is a request that has had no good answer.
type failure struct {
	kind         string
	begun, ended time.Time
	err          error
}

// startLoad starts clients of each kind, which come this way. They end with the test, if not before.
func (f *fleet) startLoad(t *testing.T, w way, kinds ...string) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{way: w, cancel: cancel, answered: make(map[string]int), nodes: make(map[string]int)}
	for _, kind := range kinds {
		l.answered[kind] = 0
		for range clientsOfAKind {
			c := f.client(w, kind)
			c.Transport.(*http.Transport).DisableKeepAlives = kind == fresh
			l.done.Go(func() { l.run(ctx, c, kind) })
		}
	}
	t.Cleanup(l.stop)
	return l
}

// startLoads starts clients that come by every way that there is.
func (f *fleet) startLoads(t *testing.T, kinds ...string) (loads []*load) {
	ways := []way{f.haproxy(), f.roundRobin()}
	if missingNginx() == "" {
		ways = append(ways, f.nginx())
	}
	for _, w := range ways {
		loads = append(loads, f.startLoad(t, w, kinds...))
	}
	return loads
}

// more waits until n more requests of each kind were answered, by every way.
func more(t *testing.T, loads []*load, n int) {
	t.Helper()
	for _, l := range loads {
		l.more(t, n)
	}
}

// moreBy waits until a node that is back has answered through every balancer. nginx does not ask a
// node for a second after it refused. When all have refused, nginx refuses the clients.
func moreBy(t *testing.T, loads []*load, node string) {
	t.Helper()
	for _, l := range loads {
		_, before, _ := l.total()
		await(t, func(context.Context) error {
			if _, now, _ := l.total(); now[node] == before[node] {
				return fmt.Errorf("%s: %s has not answered since it is back", l.way.name, node)
			}
			return nil
		})
	}
}

// lost fails the test for each new connection that was begun after the nodes were killed and failed, and returns how many other requests
// have failed since then or shortly before. One new connection is among these that was begun before noticed: at that moment HAProxy cuts all that
// it has for the node, and so also one that it is only about to take elsewhere.
func (l *load) lost(t *testing.T, killed, noticed time.Time) (others int) {
	t.Helper()
	_, _, failed := l.total()
	cut := 0
	for _, bad := range failed {
		switch {
		case bad.ended.Before(killed.Add(-time.Second)):
		case bad.kind != fresh || bad.begun.Before(killed):
			others++
		case l.way.name == "HAProxy" && cut == 0 && bad.begun.Before(noticed):
			cut++
		default:
			t.Errorf("%s: a new connection failed, begun %s after the end of the node: %v", l.way.name, bad.begun.Sub(killed).Round(time.Millisecond), bad.err)
		}
	}
	return others + cut
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

func (l *load) run(ctx context.Context, c *http.Client, kind string) {
	defer c.CloseIdleConnections()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		begun := time.Now()
		once, cancel := context.WithTimeout(ctx, patience)
		a, err := ask(once, c, strings.NewReader("x"))
		cancel()
		if ctx.Err() != nil {
			return // what the end of the test cuts off has not failed
		}
		l.mu.Lock()
		if err != nil {
			l.failed = append(l.failed, failure{kind, begun, time.Now(), err})
		} else {
			l.answered[kind]++
			l.nodes[a.Node]++
		}
		l.mu.Unlock()
	}
}

// total returns how many requests were answered, and what those were that were not.
func (l *load) total() (answered map[string]int, nodes map[string]int, failed []failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answered, nodes = make(map[string]int), make(map[string]int)
	for k, n := range l.answered {
		answered[k] = n
	}
	for k, n := range l.nodes {
		nodes[k] = n
	}
	return answered, nodes, append(failed, l.failed...)
}

// more waits until n more requests of each kind were answered.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	before, _, _ := l.total()
	await(t, func(context.Context) error {
		now, _, _ := l.total()
		for kind := range before {
			if now[kind] < before[kind]+n {
				return fmt.Errorf("%s: of %s, %d answers in place of %d", l.way.name, kind, now[kind]-before[kind], n)
			}
		}
		return nil
	})
}
