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

// The paths of Pebble whose requests are counted. Pebble does not export them. If they change, a
// test that expects a number above zero fails.
const (
	newAccountPath = "/sign-me-up"
	finalizePath   = "/finalize-order/" // followed by an ID
	ariPath        = "/renewalInfo/"    // within the path
)

// ariRetryAfter is the time for which clients keep ARI. Pebble alone says six hours.
const ariRetryAfter = time.Second

// authority counts its requests, and can move names to other addresses.
type authority struct {
	*lab.Authority
	roots *x509.CertPool // of its certificates

	requests, accounts, issued atomic.Int64 // requests, new accounts, and issued certificates

	mu    sync.Mutex
	where func(name string) []net.IP // returns the addresses of a name
	asked map[string]int             // questions, by name
}

// newAuthority starts an authority that ends with the test. It finds HTTP and TLS at these ports of
// the addresses that where returns.
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

// front counts the answers of h, and changes the time for which clients keep ARI.
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

// frontWriter calls headed before it writes the header.
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

// resolve replaces the function that returns the addresses of a name.
func (a *authority) resolve(where func(name string) []net.IP) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.where = where
}

// renewNow makes the authority say by ARI that the certificate should have been renewed an hour
// ago.
func (a *authority) renewNow(serial *big.Int) error {
	at := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339) }
	window := fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, at(2*time.Hour), at(time.Hour))
	return a.Store.SetARIResponse(serial, window)
}

// next returns one address of name, each in turn; nil if it has none. (Pebble takes the first of
// several.)
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
