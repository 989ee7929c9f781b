package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
)

// start runs the program on three nodes.
func start(t *testing.T) *clustertest.Cluster {
	c := clustertest.Start(t, clustertest.Options{Nodes: 3, Run: func(ctx context.Context, cfg flotilla.Config) error {
		return run(ctx, cfg, "api.test")
	}})
	c.Settle()
	return c
}

// retries makes calls wait for a connection, and repeats those whose connection breaks.
const retries = `{"methodConfig": [{"name": [{}], "waitForReady": true, "retryPolicy": {
	"maxAttempts": 4, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
	"retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// connect returns a gRPC client that connects as an HTTP client does. It finds out within seconds
// that a node is silent, whether it is connected already or connects to it.
func connect(t *testing.T, client *http.Client) healthpb.HealthClient {
	t.Helper()
	tr := client.Transport.(*http.Transport)
	conn, err := grpc.NewClient("passthrough:///api.test:443",
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return tr.DialContext(ctx, "tcp", addr)
		}),
		grpc.WithTransportCredentials(credentials.NewTLS(tr.TLSClientConfig)),
		grpc.WithDefaultServiceConfig(retries),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: 3 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return healthpb.NewHealthClient(conn)
}

// check asks how the server is.
func check(t *testing.T, client healthpb.HealthClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	reply, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || reply.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("the server is %v: %v", reply.GetStatus(), err)
	}
}

// watch begins a stream of what the server says about itself. It ends with ctx.
func watch(ctx context.Context, t *testing.T, client healthpb.HealthClient) grpc.ServerStreamingClient[healthpb.HealthCheckResponse] {
	t.Helper()
	stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := stream.Recv(); err != nil || reply.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("the watch begins with %v: %v", reply.GetStatus(), err)
	}
	return stream
}

// One port serves both.
func TestBothProtocols(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		for range 3 { // each on another node
			check(t, connect(t, c.Client()))
		}
		check(t, connect(t, c.Balancer().Client()))
		resp, err := c.ClientOf(1).Get("https://api.test/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "this is n1") {
			t.Errorf("a browser gets %q: %v", text, err)
		}
	})
}

// three returns three clients, each connected to another node.
func three(t *testing.T, client func() *http.Client) []healthpb.HealthClient {
	t.Helper()
	var all []healthpb.HealthClient
	for range 3 {
		all = append(all, connect(t, client()))
		check(t, all[len(all)-1])
	}
	return all
}

// A stream learns that its node ends, and the client ends the stream. So the node need not cut it.
// Clients behind a balancer go on.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		b := c.Balancer()
		for i := range c.Nodes {
			ctx, end := context.WithCancel(t.Context())
			defer end()
			own := watch(ctx, t, connect(t, c.ClientOf(i)))
			clients := three(t, b.Client)
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				if reply, err := own.Recv(); err != nil || reply.Status != healthpb.HealthCheckResponse_NOT_SERVING {
					t.Errorf("n%d: the stream says %v: %v", i, reply.GetStatus(), err)
				}
				end()
			}()
			c.Stop(i)
			<-stopped
			for _, client := range clients {
				check(t, client)
			}
			c.Restart(i)
			c.Settle()
		}
	})
}

// A client of a node that dies, or stands still, goes on at another one.
func TestNodesFail(t *testing.T) {
	for _, test := range []struct {
		name       string
		fail, back func(c *clustertest.Cluster, i int)
	}{
		{"killed", (*clustertest.Cluster).Kill, (*clustertest.Cluster).Restart},
		{"stands still", (*clustertest.Cluster).Pause, (*clustertest.Cluster).Resume},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t)
				for i := range c.Nodes {
					clients := three(t, c.Client)
					test.fail(c, i)
					for _, client := range clients {
						check(t, client)
					}
					test.back(c, i)
					c.Settle()
				}
			})
		})
	}
}
