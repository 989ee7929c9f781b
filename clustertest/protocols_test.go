package clustertest_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// transport returns the transport of a client, to be changed before it is used.
func transport(client *http.Client) *http.Transport { return client.Transport.(*http.Transport) }

// http1 returns a client that speaks HTTP/1.1 only.
func http1(client *http.Client) *http.Client {
	transport(client).Protocols = new(http.Protocols)
	transport(client).Protocols.SetHTTP1(true)
	return client
}

// protocols serves what the tests below ask for.
func protocols(_ int, _ *flotilla.Node) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	mux.HandleFunc("/echo", echoFrames)
	mux.HandleFunc("/stream", echoStream)
	return mux
}

// echoFrames upgrades to a protocol of its own, as a WebSocket does, and sends back each line.
func echoFrames(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusUpgradeRequired)
		return
	}
	defer conn.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	rw.Flush()
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		rw.WriteString(strings.ToUpper(line))
		rw.Flush()
	}
}

// echoStream sends each line back as it comes, and ends with a trailer, as a gRPC server does with
// a stream in both directions.
func echoStream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "Grpc-Status")
	control := http.NewResponseController(w)
	control.Flush()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		fmt.Fprintln(w, strings.ToUpper(lines.Text()))
		control.Flush()
	}
	w.Header().Set("Grpc-Status", "0")
}

// One cluster serves several protocols, directly and through a balancer.
func TestProtocols(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Serve(protocols)
		c.Settle()
		b := c.Balancer()
		for name, client := range map[string]func() *http.Client{"direct": c.Client, "balancer": b.Client} {
			if got := get(t, client(), "https://api.test/proto"); got != "HTTP/2.0" {
				t.Errorf("%s: %s", name, got)
			}
			if got := get(t, http1(client()), "https://api.test/proto"); got != "HTTP/1.1" {
				t.Errorf("%s: %s", name, got)
			}
			upgrade(t, http1(client()))
			stream(t, client())
		}
	})
}

// upgrade talks to echoFrames.
func upgrade(t *testing.T, client *http.Client) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://api.test/echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "lines")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	conn, ok := resp.Body.(io.ReadWriter)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		t.Fatalf("no upgrade: %s", resp.Status)
	}
	said := bufio.NewReader(conn)
	for _, word := range []string{"one\n", "two\n"} {
		if _, err := io.WriteString(conn, word); err != nil {
			t.Fatal(err)
		}
		if got, err := said.ReadString('\n'); err != nil || got != strings.ToUpper(word) {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// stream talks to echoStream.
func stream(t *testing.T, client *http.Client) {
	t.Helper()
	body, say := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "https://api.test/stream", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said := bufio.NewReader(resp.Body)
	for _, word := range []string{"one\n", "two\n"} {
		if _, err := io.WriteString(say, word); err != nil {
			t.Fatal(err)
		}
		if got, err := said.ReadString('\n'); err != nil || got != strings.ToUpper(word) {
			t.Errorf("%q, %v", got, err)
		}
	}
	say.Close()
	if _, err := said.ReadByte(); err != io.EOF || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("the end of the stream: %v, trailer %v", err, resp.Trailer)
	}
}

// A program may ask its clients for certificates.
func TestClientCertificates(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		mine, clients, err := testtls.Identity("client")
		if err != nil {
			t.Fatal(err)
		}
		c := clustertest.New(t, 1, func(_ int, cfg *flotilla.Config) {
			cfg.Server = &http.Server{TLSConfig: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}}
		})
		c.Serve(func(int, *flotilla.Node) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.TLS.PeerCertificates[0].DNSNames[0]) })
		})
		c.Settle()
		client := c.Client()
		transport(client).TLSClientConfig.Certificates = []tls.Certificate{mine}
		if got := get(t, client, "https://api.test/"); got != "client" {
			t.Errorf("the client is %q", got)
		}
		if _, err := tryGet(c.Client(), "https://api.test/"); err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("a client without a certificate: %v", err)
		}
	})
}

// A client trusts the authority of its cluster and no other.
func TestClientTrustsItsCluster(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		client := func() (*clustertest.Cluster, *http.Client) {
			c := clustertest.New(t, 1, nil)
			c.Serve(namesItself)
			c.Settle()
			return c, c.Client()
		}
		_, one := client()
		_, other := client()
		transport(one).TLSClientConfig.RootCAs = transport(other).TLSClientConfig.RootCAs
		var unknown x509.UnknownAuthorityError
		if _, err := tryGet(one, "https://api.test/"); !errors.As(err, &unknown) {
			t.Errorf("another cluster's authority: %v", err)
		}
	})
}

// What is spoken over neither TLS nor HTTP by the client's own means uses its dialer.
func TestDialContext(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 2, nil)
		c.Serve(protocols)
		c.Settle()
		tr := transport(c.ClientOf(1))
		conn, err := tr.DialContext(t.Context(), "tcp", "api.test:443")
		if err != nil {
			t.Fatal(err)
		}
		config := tr.TLSClientConfig.Clone()
		config.ServerName = "api.test"
		client := tls.Client(conn, config)
		defer client.Close()
		if err := client.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if host, _, err := net.SplitHostPort(client.RemoteAddr().String()); err != nil || host != "n1" {
			t.Errorf("it leads to %v, %v", client.RemoteAddr(), err)
		}
	})
}
