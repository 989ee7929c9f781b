package frontend

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// proxyV1 is a PROXY header, whose client is 203.0.113.7:4711.
const proxyV1 = "PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"

// loopback are the prefixes that make clients on this machine balancers.
func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// serverWith returns a Server with the limits that change makes of the default ones.
func serverWith(proxies []netip.Prefix, change func(*limits)) *Server {
	l := defaultLimits()
	change(&l)
	return newServer(testlog.None(), proxies, l)
}

// limiterWith returns a limiter with the limits that change makes of the default ones.
func limiterWith(change func(*limits)) *limiter { return serverWith(nil, change).limiter }

// unchanged is for the default limits.
func unchanged(*limits) {}

// testTLS returns a configuration that serves a.test, whose handshakes take slots, and the pool
// that verifies it.
func testTLS(tb testing.TB) (*tls.Config, *x509.CertPool) {
	tb.Helper()
	cert, roots, err := testtls.Identity("a.test")
	if err != nil {
		tb.Fatal(err)
	}
	return &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return nil, Slots{}.Acquire(hello) },
		GetCertificate:     func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, Slots{}.Acquire(hello) },
		NextProtos:         []string{"h2", "http/1.1"},
	}, roots
}

// insecure returns a client's configuration that trusts every server.
func insecure() *tls.Config { return &tls.Config{ServerName: "a.test", InsecureSkipVerify: true} }

// listenLoopback listens on addr, which is on loopback or on all interfaces, until the test ends.
func listenLoopback(tb testing.TB, addr string) *Listener {
	tb.Helper()
	ln, err := Listen(tb.Context(), "tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ln.Close() })
	return ln
}

// serveOn serves h on ln until the test ends. Clients have headerTime to send the header of a
// request.
func serveOn(tb testing.TB, ln net.Listener, headerTime time.Duration, h http.HandlerFunc) {
	tb.Helper()
	srv := &http.Server{Handler: h, ReadHeaderTimeout: headerTime, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(ln) }()
	tb.Cleanup(func() { srv.Close(); <-done })
}

// serveBehind serves h behind s on a loopback address until the test ends, and returns the address.
// A nil config makes a plain port.
func serveBehind(tb testing.TB, s *Server, config *tls.Config, h http.HandlerFunc) (addr string) {
	tb.Helper()
	ln := listenLoopback(tb, "127.0.0.1:0")
	serveOn(tb, s.Wrap(ln, config), 2*time.Second, h)
	return ln.Addr().String()
}

// drainerOf returns the drainer of srv, which serves ln.
func drainerOf(srv *http.Server, ln *Listener) *drainer {
	return newDrainer(srv, ln, testlog.None(), silentTimeout, new(meter.Counter))
}

// dialClient connects to addr until the test ends.
func dialClient(tb testing.TB, addr string) net.Conn {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a request, which may be the last on conn, and returns the answer with its body read.
func ask(conn net.Conn, last bool) (res *http.Response, body string, err error) {
	request := "GET / HTTP/1.1\r\nHost: a.test\r\n"
	if last {
		request += "Connection: close\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return nil, "", err
	}
	return readAnswer(bufio.NewReader(conn))
}

// readAnswer reads an answer with its body.
func readAnswer(r *bufio.Reader) (res *http.Response, body string, err error) {
	if res, err = http.ReadResponse(r, nil); err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

// isClosedSoon returns an error unless the other side closes conn.
func isClosedSoon(conn net.Conn) error {
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := io.Copy(io.Discard, conn)
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return errors.New("the connection is open")
	}
	return nil
}

// helloBytes returns a ClientHello.
func helloBytes(name string) []byte {
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		defer client.Close()
		tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	}()
	buf := make([]byte, 16<<10)
	n, _ := io.ReadAtLeast(server, buf, 5)
	m, _ := io.ReadFull(server, buf[n:5+int(buf[3])<<8+int(buf[4])])
	return buf[:n+m]
}
