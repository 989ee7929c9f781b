//go:build unix

package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	servingClients = 16          // at a time
	servingRound   = time.Second // of one system
	servingLimit   = 10 * time.Second
)

type dialer = func(context.Context) (net.Conn, error)

// greet dials and completes the handshake. The connection ends with ctx only until then.
func greet(ctx context.Context, dial dialer, config *tls.Config) (*tls.Conn, error) {
	raw, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return conn, nil
}

// visit makes one request on a connection of its own, and reports whether its TLS session was resumed.
func visit(ctx context.Context, dial dialer, config *tls.Config) (resumed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, servingLimit)
	defer cancel()
	conn, err := greet(ctx, dial, config)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(servingLimit))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, fmt.Errorf("response: %w", err)
	}
	if err := finish(resp); err != nil {
		return false, err
	}
	if _, err := io.Copy(io.Discard, conn); err != nil { // to its end, so that neither side resets it
		return false, err
	}
	return conn.ConnectionState().DidResume, nil
}

// finish reads a response to its end.
func finish(resp *http.Response) error {
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	return nil
}

// newClient returns a client that keeps its connections and speaks HTTP/1.1, or HTTP/2.
func newClient(b *testing.B, dial dialer, config *tls.Config, http2 bool) *http.Client {
	config = config.Clone()
	t := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return greet(ctx, dial, config) },
		Protocols:      new(http.Protocols),
	}
	t.Protocols.SetHTTP1(!http2)
	t.Protocols.SetHTTP2(http2)
	config.NextProtos = []string{"http/1.1"}
	if http2 {
		config.NextProtos = []string{"h2"}
	}
	b.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: servingLimit}
}

// ask makes one request. It is a POST, which net/http does not repeat on its own once it was sent.
func ask(c *http.Client) error {
	resp, err := c.Post("https://"+host+"/", "text/plain", http.NoBody)
	if err != nil {
		return err
	}
	return finish(resp)
}

// system is one of those that a benchmark compares: a balancer and three servers.
type system struct {
	name  string
	nodes []*server
	lb    balancer
	op    func(client int) error

	rate              []float64 // of each round: operations per second
	onNodes, onLB, on []float64 // processor time for one, in µs: of the servers, of the balancer, of both
}

// round has all clients repeat the operation for a time, and notes how it went.
func (s *system) round(b *testing.B) {
	b.Helper()
	used := func() (nodes, lb time.Duration) {
		for _, n := range s.nodes {
			nodes += cpu(b, n.Cmd.Process.Pid)
		}
		return nodes, cpu(b, s.lb.pid)
	}
	nodes, lb := used()
	var (
		wg    sync.WaitGroup
		ops   atomic.Int64
		fails = make(chan error, servingClients)
	)
	began := time.Now()
	for i := range servingClients {
		wg.Go(func() {
			for time.Since(began) < servingRound {
				if err := s.op(i); err != nil {
					fails <- err
					return
				}
				ops.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	select {
	case err := <-fails:
		b.Fatalf("%s: %v", s.name, err)
	default:
	}
	n := float64(ops.Load())
	nodesAfter, lbAfter := used()
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / n }
	s.rate = append(s.rate, n/took.Seconds())
	s.onNodes = append(s.onNodes, per(nodesAfter-nodes))
	s.onLB = append(s.onLB, per(lbAfter-lb))
	s.on = append(s.on, per(nodesAfter-nodes+lbAfter-lb))
}

// compare runs rounds of all systems in turns, and reports the first beside each of the others: the rate's ratio is better when
// greater, that of the processor time when smaller.
func compare(b *testing.B, all []*system) {
	b.Helper()
	for _, s := range all {
		s.round(b) // connections, caches
		s.rate, s.onNodes, s.onLB, s.on = nil, nil, nil, nil
	}
	b.ResetTimer()
	for i := range *rounds {
		for j := range all {
			all[(i+j)%len(all)].round(b)
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, s := range all {
		if i > 0 {
			b.ReportMetric(median(ratios(all[0].rate, s.rate)), "rate/"+s.name)
			b.ReportMetric(median(ratios(all[0].on, s.on)), "cpu/"+s.name)
		}
	}
	for _, s := range all {
		b.ReportMetric(median(s.rate), s.name+"/s")
		b.ReportMetric(median(s.onNodes), s.name+"-nodes-µs")
		b.ReportMetric(median(s.onLB), s.name+"-lb-µs")
	}
}

// newSystems starts flotilla and plain net/http behind an HAProxy each, of the same kind; and, if there are more kinds, flotilla
// behind those.
func newSystems(b *testing.B, g given, kind string, more ...string) []*system {
	b.Helper()
	needHAProxy(b)
	proxies := ""
	if kind == proxying {
		proxies = "127.0.0.1"
	}
	ours, plain := newServers(b, "flotilla", g, proxies), newServers(b, "plain", g, proxies)
	all := []*system{
		{name: "flotilla", nodes: ours, lb: newBalancer(b, kind, g, ours)},
		{name: "plain", nodes: plain, lb: newBalancer(b, kind, g, plain)},
	}
	for _, k := range more {
		all = append(all, &system{name: k, nodes: ours, lb: newBalancer(b, k, g, ours)})
	}
	return all
}

// BenchmarkServingHandshakes compares three nodes behind HAProxy in mode tcp with three processes of net/http and crypto/tls that
// have the same certificate in files, and with HAProxy that terminates TLS and encrypts anew to the same nodes. Each operation
// is a new connection: a full handshake of TLS 1.3, X25519 and ECDSA on P-256, one request, the end.
func BenchmarkServingHandshakes(b *testing.B) {
	for _, v := range []struct {
		kind string
		more []string
	}{
		{passing, []string{terminating, pooling}},
		{proxying, nil},
	} {
		b.Run(v.kind, func(b *testing.B) {
			g := newGiven(b)
			config, err := g.client()
			if err != nil {
				b.Fatal(err)
			}
			all := newSystems(b, g, v.kind, v.more...)
			for _, s := range all {
				s.op = func(int) error {
					resumed, err := visit(b.Context(), s.lb.dial, config)
					if err == nil && resumed {
						err = fmt.Errorf("the session was resumed: this is no full handshake")
					}
					return err
				}
			}
			compare(b, all)
		})
	}
}

// BenchmarkServingRequests compares the same with requests on connections that stay open: 16 of HTTP/1.1, or four of HTTP/2 with
// four requests at a time each.
func BenchmarkServingRequests(b *testing.B) {
	for _, v := range []struct {
		name    string
		kind    string
		clients int
		more    []string
	}{
		{"http1", passing, servingClients, []string{terminating, pooling}},
		{"http2", passing, servingClients / 4, []string{terminating, pooling}},
		{"http1-proxying", proxying, servingClients, nil},
	} {
		b.Run(v.name, func(b *testing.B) {
			g := newGiven(b)
			config, err := g.client()
			if err != nil {
				b.Fatal(err)
			}
			all := newSystems(b, g, v.kind, v.more...)
			for _, s := range all {
				clients := make([]*http.Client, v.clients)
				for i := range clients {
					clients[i] = newClient(b, s.lb.dial, config, v.name == "http2")
				}
				s.op = func(i int) error { return ask(clients[i%len(clients)]) }
			}
			compare(b, all)
		})
	}
}

// paced has clients repeat op at a steady pace until ctx is done, and returns how long each took. A client that is late catches up.
func paced(ctx context.Context, clients int, every time.Duration, op func(client int) error) (took []time.Duration, fails []error) {
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	began := time.Now()
	for i := range clients {
		wg.Go(func() {
			for next := began.Add(every * time.Duration(i) / time.Duration(clients)); ; next = next.Add(every) {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(next)):
				}
				err := op(i)
				mu.Lock()
				if err != nil {
					fails = append(fails, fmt.Errorf("after %v, client %d: %w", time.Since(began).Round(time.Millisecond), i, err))
				}
				took = append(took, time.Since(next)) // what a client that came at that time has waited
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took, fails
}
