package clustertest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

const (
	// dialTimeout is how long a client tries one node before it tries the next.
	dialTimeout = 3 * time.Second

	// maxIdle is how many idle connections of HTTP/1.1 a client keeps, as a browser does. With the two
	// of net/http, Load would make a connection for nearly every request.
	maxIdle = 6

	// A client notices that a connection of HTTP/2 leads nowhere after both.
	pingAfter   = 5 * time.Second
	pingTimeout = 5 * time.Second
)

// targets are the hosts of the nodes. The zero value has none. It is safe for concurrent use.
type targets struct {
	mu    sync.Mutex
	hosts []string
	next  int // the one with which the next dial begins
}

func (t *targets) add(host string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hosts = append(t.hosts, host)
}

// all returns the hosts in the order of their numbers.
func (t *targets) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.hosts)
}

// order returns all hosts, each time beginning with the next one.
func (t *targets) order() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.next % len(t.hosts)
	t.next++
	return append(slices.Clone(t.hosts[n:]), t.hosts[:n]...)
}

// Client returns a client that reaches every name that the nodes serve, such as https://api.test.
// It connects to the nodes in turn. If one refuses or does not answer within three seconds, it
// tries the next, as a browser does with a name of several addresses. It trusts the authority
// within the cluster, and waits until there is one.
//
// Each call returns another client, with a Transport that is an *http.Transport.
func (c *Cluster) Client() *http.Client {
	c.t.Helper()
	return c.client(func(ctx context.Context, _, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		var failed []error
		for _, host := range c.targets.order() {
			conn, err := c.dial(ctx, host, port)
			if err == nil {
				return conn, nil
			}
			failed = append(failed, err)
			if ctx.Err() != nil {
				break
			}
		}
		return nil, errors.Join(failed...)
	})
}

// dial connects a client to a node, within dialTimeout.
func (c *Cluster) dial(ctx context.Context, host, port string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return c.ground.dial(ctx, clientHost, host, port)
}

// ClientOf is Client for node i alone.
func (c *Cluster) ClientOf(i int) *http.Client {
	c.t.Helper()
	host := name(i)
	return c.client(func(ctx context.Context, _, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return c.dial(ctx, host, port)
	})
}

// client returns a client that dials by a function.
func (c *Cluster) client(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *http.Client {
	c.t.Helper()
	transport := &http.Transport{
		DialContext:           dial,
		TLSClientConfig:       &tls.Config{RootCAs: c.roots()},
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   maxIdle,
		ResponseHeaderTimeout: stepTimeout,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	c.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// roots returns the authority within the cluster. They are empty if the nodes have another one.
func (c *Cluster) roots() *x509.CertPool {
	c.t.Helper()
	pool := x509.NewCertPool()
	if !slices.ContainsFunc(c.Live(), c.isPrivate) {
		return pool
	}
	var storage certmagic.Storage
	c.awaitThat("ready node", func() bool {
		for _, i := range c.Live() {
			if c.isPrivate(i) && c.Nodes[i].Status().Ready {
				storage = c.Nodes[i].Storage()
				return true
			}
		}
		return false
	})
	ctx, cancel := context.WithTimeout(c.t.Context(), stepTimeout)
	defer cancel()
	root, err := (&devca.Issuer{Storage: storage}).Root(ctx)
	if err != nil {
		c.t.Fatalf("the authority within the cluster: %v", err)
	}
	pool.AddCert(root)
	return pool
}

const (
	loadWorkers = 4
	loadPause   = 20 * time.Millisecond // of a worker, between two requests
	loadErrors  = 5                     // that are shown
)

// Load sends requests with client to url, until stop is called: four at a time, with a pause of
// 20 ms after each. A request fails if there is no whole answer, or if its status is above 399. The
// function stop waits for those under way, and returns how many were answered. It fails the test if
// one has failed, or if none was answered.
func (c *Cluster) Load(client *http.Client, url string) (stop func() int) {
	ctx, end := context.WithCancel(context.WithoutCancel(c.t.Context()))
	var workers sync.WaitGroup
	var answered, failed atomic.Int64
	for range loadWorkers {
		workers.Go(func() {
			pause := time.NewTicker(loadPause)
			defer pause.Stop()
			for ctx.Err() == nil {
				if err := get(client, url); err == nil {
					answered.Add(1)
				} else if failed.Add(1) <= loadErrors {
					c.t.Errorf("a request has failed: %v", err)
				}
				select {
				case <-pause.C:
				case <-ctx.Done():
				}
			}
		})
	}
	finish := sync.OnceFunc(func() {
		end()
		workers.Wait()
	})
	c.t.Cleanup(finish)
	return func() int {
		c.t.Helper()
		finish()
		if n := failed.Load(); n > 0 || answered.Load() == 0 {
			c.t.Errorf("%d requests have failed, and %d were answered", n, answered.Load())
		}
		return int(answered.Load())
	}
}

// get makes one request.
func get(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the status is %s", resp.Status)
	}
	return nil
}
