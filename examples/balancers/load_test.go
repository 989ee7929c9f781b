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

// load is clients that send POST requests all the time. They repeat none.
type load struct {
	way    way
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex // guards the rest
	answered map[string]int
	nodes    map[string]int // answers of each
	failed   []failure
}

// failure is a request without a good answer.
type failure struct {
	kind         string
	begun, ended time.Time
	err          error
}

// startLoad starts clients of each kind that use this way. They end with the test at the latest.
func (cl *cluster) startLoad(t *testing.T, w way, kinds ...string) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{way: w, cancel: cancel, answered: make(map[string]int), nodes: make(map[string]int)}
	for _, kind := range kinds {
		l.answered[kind] = 0
		for range clientsOfAKind {
			c := cl.client(w, kind)
			c.Transport.(*http.Transport).DisableKeepAlives = kind == fresh
			l.done.Go(func() { l.run(ctx, c, kind) })
		}
	}
	t.Cleanup(l.stop)
	return l
}

// startLoads starts clients for every available way.
func (cl *cluster) startLoads(t *testing.T, kinds ...string) (loads []*load) {
	ways := []way{cl.haproxy(), cl.roundRobin()}
	if missingNginx() == "" {
		ways = append(ways, cl.nginx())
	}
	for _, w := range ways {
		loads = append(loads, cl.startLoad(t, w, kinds...))
	}
	return loads
}

// more waits for n more answers to requests of each kind, by every way.
func more(t *testing.T, loads []*load, n int) {
	t.Helper()
	for _, l := range loads {
		l.more(t, n)
	}
}

// moreBy waits until a restarted node has answered by every way. nginx does not use a node for a
// second after it has refused. If all have refused, nginx refuses the clients.
func moreBy(t *testing.T, loads []*load, node string) {
	t.Helper()
	for _, l := range loads {
		_, before, _ := l.total()
		await(t, func(context.Context) error {
			if _, now, _ := l.total(); now[node] == before[node] {
				return fmt.Errorf("%s: %s has not answered since its restart", l.way.name, node)
			}
			return nil
		})
	}
}

// lost fails the test for each new connection that began after the nodes were killed and failed. It
// returns the number of other requests that failed since then or shortly before. They may include
// one new connection through HAProxy that began before noticed. At that moment HAProxy cuts all
// connections of the node, and so also one that it was about to send to another node.
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
			t.Errorf("%s: a new connection failed, begun %s after the end of the node: %v",
				l.way.name, bad.begun.Sub(killed).Round(time.Millisecond), bad.err)
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
		once, cancel := context.WithTimeout(ctx, waitLimit)
		a, err := ask(once, c, strings.NewReader("x"))
		cancel()
		if ctx.Err() != nil {
			return // the test has ended: this is no failure
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

// total returns the numbers of answers by kind and by node, and the failed requests.
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

// more waits for n more answers to requests of each kind.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	before, _, _ := l.total()
	await(t, func(context.Context) error {
		now, _, _ := l.total()
		for kind := range before {
			if now[kind] < before[kind]+n {
				return fmt.Errorf("%s: of %s, %d answers, want %d", l.way.name, kind, now[kind]-before[kind], n)
			}
		}
		return nil
	})
}
