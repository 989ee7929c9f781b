package clustertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Times of the balancer, as in examples/balancers/haproxy.cfg.
const (
	checkInterval  = 500 * time.Millisecond
	checkTimeout   = 500 * time.Millisecond
	connectTimeout = 500 * time.Millisecond
	checkFall      = 2 // failed checks after which a node is down
)

// Balancer is a TCP balancer in front of the nodes. It forwards the bytes of ports 443 and 80, and
// knows nothing of TLS. Its methods are safe for concurrent use.
//
// It asks each node every half second for /readyz at Config.HealthAddr, and gives connections to
// the nodes that are ready, in turn. A node that answers but is not ready keeps the connections
// that it has. After two checks without an answer they are cut. If a node refuses a connection, the
// next one gets it. While no node is ready, all that answer get connections.
//
// It sends no PROXY header. A handler sees its address as that of all clients.
type Balancer struct {
	cluster *Cluster
	ctx     context.Context // ends when the test does
	work    sync.WaitGroup

	mu        sync.Mutex
	listeners []net.Listener
	backends  map[string]*backend
}

// backend is what a balancer knows of a node. The balancer's mutex guards it.
type backend struct {
	ready, alive bool
	failed       int                   // checks in a row
	conns        map[net.Conn]struct{} // to the node
}

// Balancer starts a balancer in front of the nodes, and of those that are added later. It runs
// until the test ends, and has asked every node once when Balancer returns.
func (c *Cluster) Balancer() *Balancer {
	c.t.Helper()
	ctx, end := context.WithCancel(context.Background())
	b := &Balancer{cluster: c, ctx: ctx, backends: make(map[string]*backend)}
	c.t.Cleanup(func() {
		end()
		b.close()
		b.work.Wait()
	})
	for _, port := range []string{httpsPort, httpPort} {
		ln, err := c.ground.listen(balancerHost, port)
		if err != nil {
			c.t.Fatalf("clustertest: the balancer cannot listen; is there another one? %v", err)
		}
		b.listeners = append(b.listeners, ln)
		b.work.Go(func() { b.accept(ln, port) })
	}
	b.check()
	b.work.Go(func() {
		tick := time.NewTicker(checkInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				b.check()
			case <-ctx.Done():
				return
			}
		}
	})
	return b
}

// Client is Client of Cluster for a name that leads to the balancer.
func (b *Balancer) Client() *http.Client {
	c := b.cluster
	c.t.Helper()
	return c.client(func(ctx context.Context, _, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return c.dial(ctx, balancerHost, port)
	})
}

// Ready returns the numbers of the nodes that get new connections.
func (b *Balancer) Ready() []int {
	var all []int
	hosts := b.candidates()
	for i, host := range b.cluster.targets.all() {
		if slices.Contains(hosts, host) {
			all = append(all, i)
		}
	}
	return all
}

// close ends all that would wait for clients or nodes.
func (b *Balancer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ln := range b.listeners {
		ln.Close()
	}
	for _, n := range b.backends {
		n.cut()
	}
}

// backend returns what is known of a node. b.mu is held.
func (b *Balancer) backend(host string) *backend {
	n := b.backends[host]
	if n == nil {
		n = &backend{conns: make(map[net.Conn]struct{})}
		b.backends[host] = n
	}
	return n
}

// cut closes all connections to a node. Their goroutines end then. The balancer's mutex is held.
func (n *backend) cut() {
	for conn := range n.conns {
		conn.Close()
	}
	clear(n.conns)
}

// check asks every node whether it is ready.
func (b *Balancer) check() {
	var all sync.WaitGroup
	for _, host := range b.cluster.targets.all() {
		all.Go(func() {
			ready, err := b.ask(host)
			b.mu.Lock()
			defer b.mu.Unlock()
			n := b.backend(host)
			if err == nil {
				n.ready, n.alive, n.failed = ready, true, 0
				return
			}
			if n.failed++; n.failed >= checkFall {
				n.ready, n.alive = false, false
				n.cut()
			}
		})
	}
	all.Wait()
}

// ask asks a node for /readyz. The error means that it does not answer.
func (b *Balancer) ask(host string) (ready bool, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, checkTimeout)
	defer cancel()
	asking := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		// The transport would go on dialing when the check is over.
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return b.cluster.ground.dial(ctx, balancerHost, host, healthPort)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, healthPort)+"/readyz", nil)
	if err != nil {
		return false, err
	}
	resp, err := asking.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK, nil
}

// candidates returns the nodes that get new connections, each time beginning with the next one.
func (b *Balancer) candidates() []string {
	hosts := b.cluster.targets.order()
	b.mu.Lock()
	defer b.mu.Unlock()
	ready := slices.DeleteFunc(slices.Clone(hosts), func(host string) bool { return !b.backend(host).ready })
	if len(ready) > 0 {
		return ready
	}
	return slices.DeleteFunc(hosts, func(host string) bool { return !b.backend(host).alive })
}

// accept takes connections of clients until the listener is closed.
func (b *Balancer) accept(ln net.Listener, port string) {
	for {
		client, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			b.work.Go(func() { b.forward(client, port) })
		}
	}
}

// forward connects a client to a node, and carries their bytes until both have ended.
func (b *Balancer) forward(client net.Conn, port string) {
	defer client.Close()
	host, node, err := b.connect(port)
	if err != nil {
		return // the client sees a closed connection, as with a real balancer
	}
	defer node.Close()
	if !b.keep(host, node) {
		return
	}
	defer b.forget(host, node)
	var both sync.WaitGroup
	both.Go(func() { carry(node, client) })
	both.Go(func() { carry(client, node) })
	both.Wait()
}

// keep takes a connection to a node in, unless the balancer has ended.
func (b *Balancer) keep(host string, conn net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		return false
	}
	b.backend(host).conns[conn] = struct{}{}
	return true
}

func (b *Balancer) forget(host string, conn net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.backend(host).conns, conn)
}

// connect connects to the next node that accepts.
func (b *Balancer) connect(port string) (host string, conn net.Conn, err error) {
	failed := []error{errors.New("no node is alive")}
	for _, host := range b.candidates() {
		ctx, cancel := context.WithTimeout(b.ctx, connectTimeout)
		conn, err := b.cluster.ground.dial(ctx, balancerHost, host, port)
		cancel()
		if err == nil {
			return host, conn, nil
		}
		failed = append(failed, err)
	}
	return "", nil, fmt.Errorf("clustertest: the balancer: %w", errors.Join(failed...))
}

// carry copies what from sends, and passes its end on. A connection that was reset ends the other
// one too.
func carry(to, from net.Conn) {
	_, err := io.Copy(to, from)
	half, ok := to.(interface{ CloseWrite() error })
	if err != nil || !ok || half.CloseWrite() != nil {
		to.Close()
		from.Close()
	}
}
