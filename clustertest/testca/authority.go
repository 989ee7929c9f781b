package testca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

// Challenges that an authority can offer.
const (
	HTTP01    = "http-01"
	TLSALPN01 = "tls-alpn-01"
	DNS01     = "dns-01"
)

// T is what New uses of a *testing.T.
type T interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Config says how an authority validates and what it signs. The zero Config offers all challenges
// and can validate none.
type Config struct {
	// Dial connects the authority to the name that it validates: addr is NAME:80 for HTTP-01, and
	// NAME:443 for TLS-ALPN-01. Names are in lower case. A function that leads to another node at each
	// call takes the place of a balancer. Nil: nobody can be reached.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// TXT looks TXT records up, for DNS-01. The name has no final dot. Zone has such a function. Nil:
	// there are none.
	TXT func(ctx context.Context, name string) ([]string, error)

	// Challenges are those that the authority offers. Empty: all.
	Challenges []string

	// Lifetime is that of certificates, from the moment of the order. 0: 90 days.
	Lifetime time.Duration

	// Window returns the time in which a certificate should be renewed. Nil: the two hundredths of its
	// life around the end of its second third.
	Window func(leaf *x509.Certificate) (start, end time.Time)

	// LookAgain is after what time clients should look at renewal information again. 0: 6 hours.
	LookAgain time.Duration

	// Trusting makes the authority validate nothing: an order is ready at once.
	Trusting bool
}

// Authority is a certificate authority. It is the transport of clients in memory, and an
// http.Handler for others, behind TLS. Its methods are safe for concurrent use, also from several
// bubbles.
type Authority struct {
	cfg  Config
	url  string // of the directory
	key  *ecdsa.PrivateKey
	root *x509.Certificate
	held *net.TCPListener // see Configure

	ahead       atomic.Int64 // nanoseconds by which its clock is ahead
	lifetime    atomic.Int64 // nanoseconds
	delay       atomic.Int64 // nanoseconds
	unreachable atomic.Bool

	mu          sync.Mutex
	refuse      func(Request) *Refusal // nil: nothing is refused
	limits      map[Operation]*limit
	windows     map[string][2]time.Time // by serial number: those that were set
	nonces      map[string]bool         // those that may be used
	last        int                     // the last number that an object was given
	accounts    []*account
	orders      map[string]*order
	authz       map[string]*authorization
	challenges  map[string]*challenge
	signed      map[string]*certificate // by their number
	revoked     map[string]Revocation   // by serial number
	placed      []*Order
	validations []Validation
	requests    map[Operation]int
}

// New returns an authority that no other test of the process uses. It ends with the test.
func New(t T, cfg Config) *Authority {
	t.Helper()
	if len(cfg.Challenges) == 0 {
		cfg.Challenges = []string{HTTP01, TLSALPN01, DNS01}
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = 90 * 24 * time.Hour
	}
	if cfg.LookAgain == 0 {
		cfg.LookAgain = 6 * time.Hour
	}
	if cfg.Window == nil {
		cfg.Window = secondThird
	}
	cfg.Challenges = slices.Clone(cfg.Challenges)
	a := &Authority{
		cfg: cfg,
		// acmez remembers directories by their URL, for the whole process
		url: "https://ca-" + devca.NewSerial().Text(36) + ".example/" + string(Directory),

		limits: make(map[Operation]*limit), windows: make(map[string][2]time.Time), nonces: make(map[string]bool),
	}
	a.lifetime.Store(int64(cfg.Lifetime))
	a.forgetAll()
	if err := a.makeRoot(); err != nil {
		t.Fatalf("testca: making the root: %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("testca: holding a port of loopback: %v", err)
	}
	a.held = ln.(*net.TCPListener)
	t.Cleanup(func() { ln.Close() })
	return a
}

// forgetAll makes the authority one that was never asked.
func (a *Authority) forgetAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accounts, a.placed, a.validations = nil, nil, nil
	a.orders, a.authz, a.challenges = make(map[string]*order), make(map[string]*authorization), make(map[string]*challenge)
	a.signed, a.revoked = make(map[string]*certificate), make(map[string]Revocation)
	a.requests = make(map[Operation]int)
}

func (a *Authority) makeRoot() (err error) {
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	// It is valid in the years of bubbles, and in real ones.
	root := &x509.Certificate{
		SerialNumber: devca.NewSerial(), Subject: pkix.Name{CommonName: "testca"}, NotBefore: time.Unix(0, 0),
		NotAfter: time.Now().AddDate(100, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, a.key.Public(), a.key)
	if err == nil {
		a.root, err = x509.ParseCertificate(der)
	}
	return err
}

// URL returns the URL of the directory.
func (a *Authority) URL() string { return a.url }

// Roots returns a pool that verifies the authority's certificates.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}

// Now returns the time of the authority's clock.
func (a *Authority) Now() time.Time { return time.Now().Add(time.Duration(a.ahead.Load())) }

// SetClock sets the authority's clock ahead of the right time, or behind it if d is negative.
func (a *Authority) SetClock(d time.Duration) { a.ahead.Store(int64(d)) }

// SetLifetime sets the lifetime of certificates from now on.
func (a *Authority) SetLifetime(d time.Duration) { a.lifetime.Store(int64(d)) }

// SetDelay makes each validation take that much longer, from now on. A bubble must not end while a
// validation is under way. Without a delay one takes ten seconds at most.
func (a *Authority) SetDelay(d time.Duration) { a.delay.Store(int64(d)) }

// SetUnreachable makes every request fail without an answer, as when nothing listens there, or ends
// that.
func (a *Authority) SetUnreachable(down bool) { a.unreachable.Store(down) }

// SetWindow sets the time in which the certificate with a serial number should be renewed. Serial
// numbers are in hexadecimal digits.
func (a *Authority) SetWindow(serial string, start, end time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.windows[strings.ToLower(serial)] = [2]time.Time{start, end}
}

// number returns the number of a new object. a.mu is held.
func (a *Authority) number() int {
	a.last++
	return a.last
}

// secondThird returns the two hundredths of a certificate's life around the end of its second
// third.
func secondThird(leaf *x509.Certificate) (start, end time.Time) {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	middle := leaf.NotBefore.Add(life * 2 / 3)
	return middle.Add(-life / 100), middle.Add(life / 100)
}
