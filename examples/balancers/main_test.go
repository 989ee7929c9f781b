package balancers

import (
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
	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

// nodeEnv is the environment variable that makes a process of the test binary a node.
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

// checkInterval is that of haproxy.cfg, where one answer 503 is enough.
const checkInterval = 500 * time.Millisecond

// settings is what a node needs to know.
type settings struct {
	Name, Dir, Secret         string
	Addr, HTTPS, HTTP, Health string
	Peers                     []string
	CA, Roots                 string // URL of the ACME directory, and PEM of its certificate
	Challenge                 string // the only kind that the node solves; empty: any
}

// nodeMain is main in the process of a node: a web server that is a member of a cluster, until
// SIGTERM. It also ends with the test: when its input ends.
func nodeMain() error {
	signal.Ignore(os.Interrupt) // it reaches all processes of the terminal: the test decides
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var s settings
	in, err := process.ReadSettings(&s)
	if err != nil {
		return err
	}
	go process.ExitWithParent(in)
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

// answer describes a request as the node sees it.
type answer struct {
	Node    string
	Remote  string // Request.RemoteAddr
	Proto   string
	TLS     string
	Resumed bool
}

// echo reads the request to its end, however long that takes, and answers with its description.
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
