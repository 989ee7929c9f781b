package balancers

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

// way is a way from clients to nodes.
type way struct {
	name string
	addr string // the destination; empty: clients try the nodes in turn
	dial func(context.Context) (net.Conn, error)
}

// from dials from a local address.
func from(ctx context.Context, ip, addr string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	return dialer.DialContext(ctx, "tcp", addr)
}

func to(name, addr string) way {
	return way{name, addr, func(ctx context.Context) (net.Conn, error) { return from(ctx, clientIP, addr) }}
}

func (cl *cluster) haproxy() way {
	return to("HAProxy", process.HostPort(net.ParseIP(proxyIP), cl.httpsPort()))
}
func (cl *cluster) nginx() way {
	return to("nginx", process.HostPort(net.ParseIP(nginxIP), cl.httpsPort()))
}
func direct(m *member) way { return to("direct", m.settings.HTTPS) }

// roundRobin is the way without a balancer: clients know all addresses, and try the next one when a
// connection is refused.
func (cl *cluster) roundRobin() way {
	var turn atomic.Uint64
	return way{"no balancer", "", func(ctx context.Context) (conn net.Conn, err error) {
		first := turn.Add(1)
		for i := range uint64(len(cl.nodes)) {
			m := cl.nodes[(first+i)%uint64(len(cl.nodes))]
			if conn, err = from(ctx, clientIP, m.settings.HTTPS); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}}
}

// client returns a client that uses this way and this version of HTTP. It keeps its connections.
func (cl *cluster) client(w way, proto string) *http.Client {
	t := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return w.dial(ctx) },
		TLSClientConfig:   &tls.Config{RootCAs: cl.roots},
		ForceAttemptHTTP2: proto == "HTTP/2.0",
	}
	if proto != "HTTP/2.0" {
		t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	return &http.Client{Transport: t}
}

// ask sends a POST and returns the answer. Clients do not repeat a POST that may have arrived.
func ask(ctx context.Context, c *http.Client, body io.Reader) (answer, error) {
	var a answer
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+domain+"/", body)
	if err != nil {
		return a, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("answered %s", resp.Status)
	}
	return a, json.NewDecoder(resp.Body).Decode(&a)
}
