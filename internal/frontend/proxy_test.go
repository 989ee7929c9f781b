package frontend

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestProxyHeader(t *testing.T) {
	const (
		v1      = "PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"
		v1v6    = "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"
		unknown = "PROXY UNKNOWN\r\n"
		v2      = "\r\n\r\n\x00\r\nQUIT\n"
		v2Local = v2 + "\x20\x00\x00\x00"
		v2TCP4  = v2 + "\x21\x11\x00\x0c" + "\xcb\x00\x71\x07" + "\xc0\x00\x02\x01" + "\x12\x67\x01\xbb"
		v2TCP6  = v2 + "\x21\x21\x00\x24" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x12\x67\x01\xbb"
		// the SNI
		v2TLV = v2 + "\x21\x11\x00\x15" + "\xcb\x00\x71\x07" + "\xc0\x00\x02\x01" + "\x12\x67\x01\xbb" + "\x02\x00\x06a.test"
		// and 3000 bytes of padding
		v2Big  = v2 + "\x21\x11\x0b\xc7" + "\xcb\x00\x71\x07" + "\xc0\x00\x02\x01" + "\x12\x67\x01\xbb" + "\x04\x0b\xb8"
		v2Long = v2 + "\x21\x11\xea\x60"
	)
	here := append([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, loopback()...)
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::/0")}
	config, _ := testTLS(t)
	for _, tc := range []struct {
		name    string
		listen  string
		proxies []netip.Prefix
		header  string
		// the client as the handler sees it; "self": the address of the socket; empty: refused
		want string
	}{
		{"nobody trusted, none", "127.0.0.1:0", nil, "", "self"},
		{"nobody trusted, v1", "127.0.0.1:0", nil, v1, ""},
		{"trusted, v1", "127.0.0.1:0", here, v1, "203.0.113.7:4711"},
		{"trusted, v1 of IPv6", "127.0.0.1:0", here, v1v6, "[2001:db8::7]:4711"},
		{"trusted, v2", "127.0.0.1:0", here, v2TCP4, "203.0.113.7:4711"},
		{"trusted, v2, both families listening", ":0", here, v2TCP4, "203.0.113.7:4711"},
		{"trusted, LOCAL", "127.0.0.1:0", here, v2Local, "self"},
		{"trusted, UNKNOWN", "127.0.0.1:0", here, unknown, "self"},
		{"trusted, v2 of IPv6", "127.0.0.1:0", here, v2TCP6, "[2001:db8::7]:4711"},
		{"trusted, v2 with the SNI", "127.0.0.1:0", here, v2TLV, "203.0.113.7:4711"},
		{"trusted, v2 with 3000 bytes more", "127.0.0.1:0", here, v2Big + strings.Repeat("\x00", 3000), "203.0.113.7:4711"},
		{"trusted, v1 ended by LF", "127.0.0.1:0", here, strings.ReplaceAll(v1, "\r", ""), ""},
		{"trusted, v1 twice", "127.0.0.1:0", here, v1 + v1, ""},
		{"trusted, too long for v1", "127.0.0.1:0", here, "PROXY TCP4 " + strings.Repeat("1", 300) + "\r\n", ""},
		{"trusted, none", "127.0.0.1:0", here, "", ""},
		{"trusted, twice", "127.0.0.1:0", here, v2TCP4 + v1, ""},
		{"trusted, garbage", "127.0.0.1:0", here, "PROXY TCP4 x\r\n", ""},
		{"trusted, cut short", "127.0.0.1:0", here, v2Long, ""},
		{"not trusted, none", "127.0.0.1:0", elsewhere, "", "self"},
		{"not trusted, v1", "127.0.0.1:0", elsewhere, v1, ""},
		{"not trusted, v2", "127.0.0.1:0", elsewhere, v2TCP4, ""},
		{"not trusted, LOCAL", "127.0.0.1:0", elsewhere, v2Local, ""},
		{"not trusted, UNKNOWN", "127.0.0.1:0", elsewhere, unknown, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, proto := range []string{"plain", "http/1.1", "h2"} {
				t.Run(proto, func(t *testing.T) {
					var with *tls.Config
					if proto != "plain" {
						with = config
					}
					ln := serverWith(tc.proxies, unchanged).Wrap(listenLoopback(t, tc.listen), with)
					serveOn(t, ln, 20*time.Second, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto+" "+r.RemoteAddr) })
					_, port, _ := net.SplitHostPort(ln.Addr().String())
					conn := dialClient(t, "127.0.0.1:"+port)
					if _, err := io.WriteString(conn, tc.header); err != nil {
						t.Fatal(err)
					}
					if tc.header == v2Long {
						conn.(*net.TCPConn).CloseWrite() // or the server waits for the rest until its timeout
					}
					got := ""
					if proto == "plain" {
						if res, body, err := ask(conn, false); err == nil && res.StatusCode == http.StatusOK {
							got = body
						}
					} else if body, ok := getOver(t, conn, proto); ok {
						got = body
					}
					want := tc.want
					if want == "self" {
						want = conn.LocalAddr().String()
					}
					if want != "" {
						want = map[string]string{"plain": "HTTP/1.1 ", "http/1.1": "HTTP/1.1 ", "h2": "HTTP/2.0 "}[proto] + want
					}
					if got != want {
						t.Errorf("client %q, want %q", got, want)
					}
				})
			}
		})
	}
}

// getOver makes a TLS handshake on conn, for HTTP of the version proto, and returns the answer to a
// request. It returns false if the handshake fails.
func getOver(t *testing.T, conn net.Conn, proto string) (body string, ok bool) {
	t.Helper()
	config := insecure()
	config.NextProtos = []string{proto}
	client := tls.Client(conn, config)
	if client.Handshake() != nil {
		return "", false
	}
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return client, nil },
	}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get("https://a.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return string(b), true
}

// net/http clones the configuration that it is given. Wrap must not, or later ticket keys would not
// be used.
func TestWrapKeepsConfig(t *testing.T) {
	config, _ := testTLS(t)
	addr := serveBehind(t, serverWith(nil, unchanged), config, http.NotFound)
	client := insecure()
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	resumed := func() bool {
		conn, err := tls.Dial("tcp", addr, client)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, _, err := ask(conn, true); err != nil { // tickets come with the first data
			t.Fatal(err)
		}
		return conn.ConnectionState().DidResume
	}
	config.SetSessionTicketKeys([][32]byte{{1}})
	if resumed() || !resumed() {
		t.Fatal("sessions are not resumed")
	}
	config.SetSessionTicketKeys([][32]byte{{2}})
	if resumed() {
		t.Error("a session was resumed by a key that has been replaced")
	}
}
