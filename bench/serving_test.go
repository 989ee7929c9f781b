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

// greet dials and completes the handshake. Only until then does the end of ctx end the connection.
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

// visit makes one request on its own connection. It returns true if the TLS session was resumed.
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
	if _, err := io.Copy(io.Discard, conn); err != nil { // so that neither side resets it
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

// newClient returns a client that keeps its connections. It speaks HTTP/1.1 or HTTP/2.
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

// ask makes one request. It is a POST, which net/http does not repeat once it was sent.
func ask(c *http.Client) error {
	resp, err := c.Post("https://"+host+"/", "text/plain", http.NoBody)
	if err != nil {
		return err
	}
	return finish(resp)
}

// system is one of the systems that a benchmark compares: a balancer and three servers.
type system struct {
	name  string
	nodes []*server
	lb    balancer
	op    func(client int) error

	rate              []float64 // of each round: operations per second
	onNodes, onLB, on []float64 // processor time of one in µs: of the servers, the balancer, both
}

// round lets all clients repeat the operation for a time, and records the figures.
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

// compare runs rounds of all systems in turn, and reports the first one beside each of the others.
// A greater ratio of the rates is better, and a smaller one of the processor times.
func compare(b *testing.B, all []*system) {
	b.Helper()
	for _, s := range all {
		s.round(b) // fills connections and caches
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

// newSystems starts flotilla and plain net/http, each behind an HAProxy of one kind. For more kinds
// it starts flotilla behind those, too.
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

// newComparison makes a certificate, starts systems with it, and returns the configuration of their
// clients.
func newComparison(b *testing.B, kind string, more ...string) (*tls.Config, []*system) {
	b.Helper()
	g := newGiven(b)
	config, err := g.client()
	if err != nil {
		b.Fatal(err)
	}
	return config, newSystems(b, g, kind, more...)
}

// BenchmarkServingHandshakes compares three nodes behind HAProxy in mode tcp with two others: three
// processes of net/http and crypto/tls with the same certificate in files, and HAProxy that ends
// TLS and encrypts anew to the same nodes. Each operation is a new connection: a full handshake of
// TLS 1.3, X25519 and ECDSA on P-256, and one request.
func BenchmarkServingHandshakes(b *testing.B) {
	for _, v := range []struct {
		kind string
		more []string
	}{
		{passing, []string{terminating, pooling}},
		{proxying, nil},
	} {
		b.Run(v.kind, func(b *testing.B) {
			config, all := newComparison(b, v.kind, v.more...)
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

// BenchmarkServingRequests compares the same systems with requests on kept connections: 16 of
// HTTP/1.1, or four of HTTP/2 with four requests at a time each.
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
			config, all := newComparison(b, v.kind, v.more...)
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

// paced lets clients repeat op at a fixed rate until ctx is done, and returns the time of each
// operation. A client that is late catches up.
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
				took = append(took, time.Since(next)) // the wait of a client that came at that time
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took, fails
}
