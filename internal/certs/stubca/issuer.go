package stubca

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

// T is what is used of a *testing.T, without its package: only tests may link that.
type T interface {
	Helper()
	Context() context.Context
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// Issuer is the development CA, which fails when Fails says so. It counts as a public authority, so
// the cluster's limit of orders holds for it.
type Issuer struct {
	devca.Issuer
	Fails func() error // returns the error of an order, nil for one that succeeds
}

// Issue implements certmagic.Issuer.
func (i *Issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if err := i.Fails(); err != nil {
		return nil, err
	}
	return i.Issuer.Issue(ctx, csr)
}

// Orders records when orders were placed, over all nodes. The zero value is ready.
type Orders struct {
	Fail func(nth int) error // decides on the nth order; nil: none fails

	mu    sync.Mutex
	times []time.Time
}

// Place records an order, for Issuer.Fails.
func (o *Orders) Place() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.times = append(o.times, time.Now())
	if o.Fail != nil {
		return o.Fail(len(o.times))
	}
	return nil
}

// Configure has a node order from the development CA and records the orders.
func (o *Orders) Configure(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
	cfg.Issuers = []certmagic.Issuer{&Issuer{Issuer: devca.Issuer{Storage: cfg.Storage}, Fails: o.Place}}
}

// Count returns the number of orders.
func (o *Orders) Count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.times)
}

// Took returns the time between the first order and the last.
func (o *Orders) Took() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.MaxFunc(o.times, time.Time.Compare).Sub(slices.MinFunc(o.times, time.Time.Compare))
}

// Check fails the test unless there were n orders, and never more of them in a window than
// certmagic allows.
func (o *Orders) Check(t T, n int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.times) != n {
		t.Errorf("%d orders, want %d", len(o.times), n)
	}
	slices.SortFunc(o.times, time.Time.Compare)
	for i := certmagic.RateLimitEvents; i < len(o.times); i++ {
		if d := o.times[i].Sub(o.times[i-certmagic.RateLimitEvents]); d < certmagic.RateLimitEventsWindow {
			t.Fatalf("orders %d to %d were placed within %v", i-certmagic.RateLimitEvents, i, d)
		}
	}
}

// Names returns n names that begin with prefix.
func Names(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%d.example", prefix, i)
	}
	return names
}

// StoreToken stores a challenge of the given kind as the solver of another node does. An order in
// this process would prove nothing: certmagic keeps its own challenges in a variable of the
// process.
func StoreToken(t T, storage certmagic.Storage, issuer, kind, name string) acme.Challenge {
	t.Helper()
	token := acme.Challenge{
		Type: kind, Token: "token-of-" + name, KeyAuthorization: "token-of-" + name + ".thumbprint",
		Identifier: acme.Identifier{Type: "dns", Value: name},
	}
	text, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	key := "acme/" + certmagic.StorageKeys.Safe(issuer) + "/challenge_tokens/" + name + ".json"
	if err := storage.Store(t.Context(), key, text); err != nil {
		t.Fatal(err)
	}
	return token
}

// DevRoots returns the root of the development CA whose key is in storage.
func DevRoots(t T, storage certmagic.Storage) *x509.CertPool {
	t.Helper()
	root, err := (&devca.Issuer{Storage: storage}).Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return pool
}
