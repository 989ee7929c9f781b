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

// Clients come from an address of their own, by HTTP/1.1 and HTTP/2, TLS 1.2 and 1.3, and that address is what the handler sees.
func TestClients(t *testing.T) {
	f := startFleet(t, "")
	for _, w := range []way{f.haproxy(), f.nginx(), direct(f.nodes[0])} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(w.name+" "+proto+" "+tls.VersionName(version), func(t *testing.T) {
					skipWithout(t, w)
					c := f.client(w, proto)
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
						t.Errorf("what the handler saw, - want, + got:\n%s", diff)
					}
				})
			}
		}
	}
	t.Run("spoofed", f.testSpoofed)
	t.Run("curl", f.testCurl)
}

// A PROXY header is believed if it comes from the balancer. A client's, whether it goes to a node or through a balancer that puts its own before it, is
// not: to TLS it is no handshake.
func (f *fleet) testSpoofed(t *testing.T) {
	v1 := "PROXY TCP4 203.0.113.7 203.0.113.8 4711 443\r\n"
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\xcb\x00\x71\x07" + "\xcb\x00\x71\x08" + "\x12\x67" + "\x01\xbb"
	node := f.nodes[0].settings.HTTPS
	for _, tt := range []struct {
		name, from string
		way        way
		believed   bool
	}{
		{"from the balancer's address", proxyIP, to("", node), true},
		{"to a node", clientIP, to("", node), false},
		{"through HAProxy", clientIP, f.haproxy(), false},
		{"through HAProxy, from its own address", proxyIP, f.haproxy(), false},
		{"through nginx", clientIP, f.nginx(), false},
		{"through nginx, from its own address", proxyIP, f.nginx(), false},
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
					c := f.client(w, "HTTP/1.1")
					defer c.CloseIdleConnections()
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					return ask(ctx, c, nil)
				}
				a, err := say("")
				if tt.believed && (err == nil || errors.Is(err, context.DeadlineExceeded)) || !tt.believed && err != nil { // cut, not left open
					t.Errorf("without a header the client is at %q (%v)", a.Remote, err)
				}
				a, err = say(header)
				switch believed := a.Remote == "203.0.113.7:4711"; {
				case tt.believed && (err != nil || !believed):
					t.Errorf("the client is at %q (%v), want what the header says", a.Remote, err)
				case !tt.believed && err == nil:
					t.Errorf("the header was swallowed, and the request answered; the client is at %q", a.Remote)
				case errors.Is(err, context.DeadlineExceeded):
					t.Error("the connection was left open")
				}
			})
		}
	}
}

// curl finds its way through the balancers too, by HTTP/2.
func (f *fleet) testCurl(t *testing.T) {
	need(t, "curl")
	for _, w := range []way{f.haproxy(), f.nginx()} {
		t.Run(w.name, func(t *testing.T) {
			skipWithout(t, w)
			out, err := f.curl(t.Context(), w, "--http2", "https://"+domain+"/").Output()
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

// curl returns the command for requests to URLs of domain, which come this way.
func (f *fleet) curl(ctx context.Context, w way, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(ctx, patience)
	cmd := exec.CommandContext(ctx, "curl", append([]string{
		"-q", "--silent", "--show-error", "--noproxy", "*", "--interface", clientIP, "--cacert", f.rootCA,
		"--connect-to", "::" + w.addr}, args...)...)
	cmd.Cancel = func() error { cancel(); return cmd.Process.Kill() }
	cmd.WaitDelay = time.Second
	return cmd
}

// The certificate authority comes through HAProxy as well, and finds the answer at whichever node it is sent to.
func TestChallenges(t *testing.T) {
	for _, challenge := range []string{http01, tlsALPN} {
		t.Run(challenge, func(t *testing.T) {
			f := startFleet(t, challenge)
			if n := f.ca.Orders.Load(); n < 1 {
				t.Errorf("%d orders", n)
			} else {
				t.Logf("%d orders", n)
			}
			c := f.client(f.haproxy(), "HTTP/1.1")
			defer c.CloseIdleConnections()
			if _, err := ask(t.Context(), c, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// skipWithout skips the test if there is no such balancer.
func skipWithout(t *testing.T, w way) {
	t.Helper()
	if missing := missingNginx(); missing != "" && strings.Contains(w.name, "nginx") {
		t.Skip(missing)
	}
}
