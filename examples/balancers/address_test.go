package balancers

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Clients use HTTP/1.1 and HTTP/2 over TLS 1.2 and 1.3. The handler sees their address, not that of
// the balancer.
func TestClients(t *testing.T) {
	cl := startCluster(t, "")
	for _, w := range []way{cl.haproxy(), cl.nginx(), direct(cl.nodes[0])} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(w.name+" "+proto+" "+tls.VersionName(version), func(t *testing.T) {
					skipWithout(t, w)
					c := cl.client(w, proto)
					defer c.CloseIdleConnections()
					transport := c.Transport.(*http.Transport)
					transport.TLSClientConfig.MinVersion, transport.TLSClientConfig.MaxVersion = version, version
					want := answer{Proto: proto, TLS: tls.VersionName(version)}
					ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
						GotConn: func(i httptrace.GotConnInfo) { want.Remote = i.Conn.LocalAddr().String() },
					})
					got, err := ask(ctx, c, nil)
					if err != nil {
						t.Fatal(err)
					}
					got.Node = ""
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("the request at the handler (-want +got):\n%s", diff)
					}
				})
			}
		}
	}
	t.Run("spoofed", cl.testSpoofed)
	t.Run("curl", cl.testCurl)
}

// A node believes a PROXY header from the balancer. It does not believe one from a client, sent
// directly or through a balancer that puts its own before it: TLS refuses it, because it is no
// handshake.
func (cl *cluster) testSpoofed(t *testing.T) {
	v1 := "PROXY TCP4 203.0.113.7 203.0.113.8 4711 443\r\n"
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\xcb\x00\x71\x07" + "\xcb\x00\x71\x08" + "\x12\x67" + "\x01\xbb"
	node := cl.nodes[0].settings.HTTPS
	for _, tt := range []struct {
		name, from string
		way        way
		believed   bool
	}{
		{"from the balancer's address", proxyIP, to("", node), true},
		{"to a node", clientIP, to("", node), false},
		{"through HAProxy", clientIP, cl.haproxy(), false},
		{"through HAProxy, from its own address", proxyIP, cl.haproxy(), false},
		{"through nginx", clientIP, cl.nginx(), false},
		{"through nginx, from its own address", proxyIP, cl.nginx(), false},
	} {
		for version, header := range map[string]string{"v1": v1, "v2": v2} {
			t.Run(tt.name+" "+version, func(t *testing.T) {
				skipWithout(t, tt.way)
				say := func(first string) (answer, error) {
					w := tt.way
					w.dial = func(ctx context.Context) (net.Conn, error) {
						conn, err := from(ctx, tt.from, tt.way.addr)
						if err == nil {
							_, err = io.WriteString(conn, first)
						}
						return conn, err
					}
					c := cl.client(w, "HTTP/1.1")
					defer c.CloseIdleConnections()
					ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
					defer cancel()
					return ask(ctx, c, nil)
				}
				a, err := say("")
				cut := err != nil && !errors.Is(err, context.DeadlineExceeded)
				if tt.believed && !cut || !tt.believed && err != nil {
					t.Errorf("without a header the client is at %q (%v)", a.Remote, err)
				}
				a, err = say(header)
				switch believed := a.Remote == "203.0.113.7:4711"; {
				case tt.believed && (err != nil || !believed):
					t.Errorf("the client is at %q (%v), want the address in the header", a.Remote, err)
				case !tt.believed && err == nil:
					t.Errorf("the node ignored the header and answered; the client is at %q", a.Remote)
				case errors.Is(err, context.DeadlineExceeded):
					t.Error("the connection stays open")
				}
			})
		}
	}
}

// curl gets an answer through the balancers by HTTP/2.
func (cl *cluster) testCurl(t *testing.T) {
	need(t, "curl")
	for _, w := range []way{cl.haproxy(), cl.nginx()} {
		t.Run(w.name, func(t *testing.T) {
			skipWithout(t, w)
			out, err := cl.curl(t.Context(), w, "--http2", "https://"+domain+"/").Output()
			var got answer
			if err == nil {
				err = json.Unmarshal(out, &got)
			}
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if host, _, _ := net.SplitHostPort(got.Remote); host != clientIP || got.Proto != "HTTP/2.0" {
				t.Errorf("the handler saw %+v", got)
			}
		})
	}
}

// curl returns a command for requests to URLs of domain that use this way.
func (cl *cluster) curl(ctx context.Context, w way, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	cmd := exec.CommandContext(ctx, "curl", append([]string{
		"-q", "--silent", "--show-error", "--noproxy", "*", "--interface", clientIP, "--cacert", cl.rootCA,
		"--connect-to", "::" + w.addr}, args...)...)
	cmd.Cancel = func() error { cancel(); return cmd.Process.Kill() }
	cmd.WaitDelay = time.Second
	return cmd
}

// The certificate authority also comes through HAProxy. Every node answers the challenge.
func TestChallenges(t *testing.T) {
	for _, challenge := range []string{http01, tlsALPN} {
		t.Run(challenge, func(t *testing.T) {
			cl := startCluster(t, challenge)
			if n := cl.ca.Orders.Load(); n < 1 {
				t.Errorf("%d orders", n)
			} else {
				t.Logf("%d orders", n)
			}
			c := cl.client(cl.haproxy(), "HTTP/1.1")
			defer c.CloseIdleConnections()
			if _, err := ask(t.Context(), c, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// skipWithout skips the test if the balancer is not installed.
func skipWithout(t *testing.T, w way) {
	t.Helper()
	if missing := missingNginx(); missing != "" && strings.Contains(w.name, "nginx") {
		t.Skip(missing)
	}
}
