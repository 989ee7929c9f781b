package acmetest

import (
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/examples/internal/lab"
)

// Where Pebble takes what is counted. They are not constants that Pebble exports; a test that expects a number above zero fails
// if they change.
const (
	newAccountPath = "/sign-me-up"
	finalizePath   = "/finalize-order/" // and an ID
	ariPath        = "/renewalInfo/"    // in the middle of it
)

// ariRetryAfter is how long clients are told to keep ARI. Pebble says six hours.
const ariRetryAfter = time.Second

// authority is one whose requests are counted and whose names can be moved.
type authority struct {
	*lab.Authority
	roots *x509.CertPool // of the certificates that it issues

	requests, accounts, issued atomic.Int64 // that have come, that it has opened, and certificates

	mu    sync.Mutex
	where func(name string) []net.IP // asked for the addresses of a name
	asked map[string]int             // how often, by name
}

// newAuthority starts an authority that finds HTTP and TLS at these ports of the addresses that where returns. It lives as long
// as the test.
func newAuthority(t *testing.T, httpPort, tlsPort int, where func(name string) []net.IP) *authority {
	t.Helper()
	a := &authority{where: where, asked: make(map[string]int), roots: x509.NewCertPool()}
	var err error
	if a.Authority, err = lab.StartAuthority(httpPort, tlsPort, a.next, io.Discard, a.front); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	a.roots.AddCert(a.Root)
	return a
}

// front counts what h does, by its own answers, and changes how long clients keep ARI.
func (a *authority) front(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.requests.Add(1)
		h.ServeHTTP(&frontWriter{ResponseWriter: w, headed: func(status int) {
			switch {
			case strings.Contains(r.URL.Path, ariPath):
				w.Header().Set("Retry-After", fmt.Sprint(int(ariRetryAfter/time.Second)))
			case status == http.StatusCreated && r.URL.Path == newAccountPath:
				a.accounts.Add(1)
			case status == http.StatusOK && strings.HasPrefix(r.URL.Path, finalizePath):
				a.issued.Add(1)
			}
		}}, r)
	})
}

// frontWriter calls headed before the header is written.
type frontWriter struct {
	http.ResponseWriter
	headed func(status int)
	done   bool
}

func (w *frontWriter) WriteHeader(status int) {
	if !w.done {
		w.done = true
		w.headed(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *frontWriter) Write(p []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// resolve makes where answer from now on.
func (a *authority) resolve(where func(name string) []net.IP) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.where = where
}

// renewNow makes the authority say, to whoever asks, that the certificate should have been renewed an hour ago.
func (a *authority) renewNow(serial *big.Int) error {
	at := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339) }
	return a.Store.SetARIResponse(serial, fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, at(2*time.Hour), at(time.Hour)))
}

// next returns the next address of name, each in its turn, as Pebble takes the first of several; nil if it has none.
func (a *authority) next(name string) net.IP {
	a.mu.Lock()
	where := a.where
	a.mu.Unlock()
	ips := where(name)
	if len(ips) == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[name]++
	return ips[a.asked[name]%len(ips)]
}
