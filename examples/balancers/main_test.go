package balancers

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla"
)

// nodeEnv makes a process of this test's binary a node.
const nodeEnv = "FLOTILLA_BALANCERS_NODE"

func TestMain(m *testing.M) {
	if os.Getenv(nodeEnv) != "" {
		if err := nodeMain(); err != nil {
			fmt.Fprintln(os.Stderr, "the node has failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// checkInterval is HAProxy's, and one check that says 503 is enough for it.
const checkInterval = 500 * time.Millisecond

// settings is what a node is told on its standard input, in one line of JSON.
type settings struct {
	Name, Dir, Secret         string
	Addr, HTTPS, HTTP, Health string
	Peers                     []string
	CA, Roots                 string // URL of the ACME directory, and PEM of the certificate that it shows
	Challenge                 string // the only one that is solved; empty: any
}

// nodeMain is main in a node's process: a web server that is a member of a cluster, until SIGTERM. When its input ends, the test is
// gone, and so is the node.
func nodeMain() error {
	signal.Ignore(os.Interrupt) // which reaches every process of the terminal; the test's end is what counts
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, in)
		os.Exit(1)
	}()
	var s settings
	if err := json.Unmarshal(line, &s); err != nil {
		return err
	}
	secret, err := flotilla.ParseSecret(s.Secret)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(s.Roots)) {
		return errors.New("the certificate of the ACME server is not PEM")
	}
	return flotilla.Serve(ctx, flotilla.Config{
		Dir:        s.Dir,
		Name:       s.Name,
		Addr:       s.Addr,
		Secrets:    []flotilla.Secret{secret},
		Peers:      flotilla.Static(s.Peers...),
		Expect:     len(s.Peers),
		HTTPSAddr:  s.HTTPS,
		HTTPAddr:   s.HTTP,
		HealthAddr: s.Health,
		Proxies:    []netip.Prefix{netip.MustParsePrefix(proxyIP + "/32")},
		Drain:      flotilla.Drain{Grace: 3 * checkInterval},
		Logger:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
		TLS: flotilla.TLS{
			CA: s.CA, TrustedRoots: roots,
			Configure: func(_ *certmagic.Config, i *certmagic.ACMEIssuer) {
				i.DisableHTTPChallenge = s.Challenge == tlsALPN
				i.DisableTLSALPNChallenge = s.Challenge == http01
			},
		},
	}, echo(s.Name), domain)
}

// answer is what a node says of a request.
type answer struct {
	Node    string
	Remote  string // Request.RemoteAddr
	Proto   string
	TLS     string
	Resumed bool
}

// echo reads the request to its end, however long that takes, and answers with what it has seen.
func echo(node string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // the client is gone
		}
		json.NewEncoder(w).Encode(answer{
			Node: node, Remote: r.RemoteAddr, Proto: r.Proto, TLS: tls.VersionName(r.TLS.Version), Resumed: r.TLS.DidResume,
		})
	})
}
