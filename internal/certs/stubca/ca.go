package stubca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

// CA is an ACME authority in memory. It is the transport of issuers, validates nothing, records
// each order, and refuses what Refuse says. Its methods are safe for concurrent use.
type CA struct {
	// Refuse returns the answer to a request that is refused, nil for one that is not. what is
	// directory, nonce, account, kid, keychange, order, finalize, cert or revoke. Nil refuses nothing.
	Refuse func(what string, names []string) *http.Response
	// Life is the lifetime of a certificate.
	Life time.Duration
	// URL is that of the directory. acmez caches directories for the whole process by this URL.
	URL string

	ahead atomic.Int64 // nanoseconds by which its clock is ahead
	key   *ecdsa.PrivateKey
	root  *x509.Certificate

	mu       sync.Mutex
	orders   []Order
	requests map[string]int // by kind, as in Refuse
	accounts []*registered
	signed   [][]byte // chains
	revoked  map[string]Revocation
}

// Order is an order that was placed.
type Order struct {
	At   time.Time // when it was placed
	Name string    // several are joined by commas
}

// New returns an authority whose directory no other test of the process uses.
func New(t T) *CA {
	t.Helper()
	ca := &CA{
		Life: 90 * 24 * time.Hour, requests: make(map[string]int), revoked: make(map[string]Revocation),
		URL: "https://stub-" + devca.NewSerial().Text(36) + ".example/directory",
	}
	var err error
	if ca.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: devca.NewSerial(), Subject: pkix.Name{CommonName: "stub"}, NotBefore: time.Unix(0, 0),
		NotAfter: time.Now().AddDate(100, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, ca.key.Public(), ca.key)
	if err == nil {
		ca.root, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// Now returns the time of the authority's clock.
func (ca *CA) Now() time.Time {
	return time.Now().Add(time.Duration(ca.ahead.Load()))
}

// Set sets the authority's clock ahead of the right time.
func (ca *CA) Set(ahead time.Duration) { ca.ahead.Store(int64(ahead)) }

// Answer makes a response. A body of bytes is sent as it is, any other as JSON. A nil value in
// header removes that field.
func (ca *CA) Answer(status int, header http.Header, body any) *http.Response {
	var b bytes.Buffer
	if pem, ok := body.([]byte); ok {
		b.Write(pem)
	} else if body != nil {
		json.NewEncoder(&b).Encode(body)
	}
	h := http.Header{"Date": {ca.Now().UTC().Format(http.TimeFormat)}, "Replay-Nonce": {"n"}, "Content-Type": {"application/json"}}
	if status >= 400 {
		h.Set("Content-Type", "application/problem+json")
	}
	for k, v := range header {
		if h[k] = v; v == nil {
			delete(h, k)
		}
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Header: h, Body: io.NopCloser(&b), ProtoMajor: 1, ProtoMinor: 1}
}

// Problem makes a refusal with an ACME problem document. after becomes Retry-After unless empty.
func (ca *CA) Problem(status int, kind, detail, after string) *http.Response {
	h := http.Header{}
	if after != "" {
		h.Set("Retry-After", after)
	}
	return ca.Answer(status, h, acme.Problem{Type: acme.ProblemTypeNamespace + kind, Detail: detail, Status: status})
}

// RoundTrip implements http.RoundTripper.
func (ca *CA) RoundTrip(r *http.Request) (*http.Response, error) {
	base := "https://" + r.URL.Host
	what := strings.Split(strings.Trim(r.URL.Path, "/"), "/")[0]
	var jws message
	if r.Body != nil {
		if err := json.NewDecoder(r.Body).Decode(&jws); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	payload := jws.payload()
	var order struct {
		Identifiers []acme.Identifier
		CSR         string
	}
	json.Unmarshal(payload, &order)
	var names []string
	for _, id := range order.Identifiers {
		names = append(names, id.Value)
	}
	ca.mu.Lock()
	ca.requests[what]++
	if what == "order" {
		ca.orders = append(ca.orders, Order{At: time.Now(), Name: strings.Join(names, ",")})
	}
	ca.mu.Unlock()
	if ca.Refuse != nil {
		if res := ca.Refuse(what, names); res != nil {
			return res, nil
		}
	}
	header := http.Header{}
	if r.Method == http.MethodPost && what != "account" && what != "revoke" {
		a, refusal := ca.signer(jws)
		if refusal != nil {
			return refusal, nil
		}
		switch what {
		case "kid":
			return ca.close(a, jws), nil
		case "keychange":
			return ca.changeKey(a, jws), nil
		}
	}
	switch what {
	case "directory":
		return ca.Answer(200, http.Header{"Replay-Nonce": nil}, map[string]string{
			"newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/order",
			"keyChange": base + "/keychange", "revokeCert": base + "/revoke",
		}), nil
	case "nonce":
		return ca.Answer(200, nil, nil), nil
	case "account":
		return ca.account(base, jws), nil
	case "revoke":
		return ca.revoke(jws), nil
	case "order":
		header.Set("Location", base+"/placed/"+strings.Join(names, ","))
		return ca.Answer(201, header, map[string]any{"status": "ready", "identifiers": order.Identifiers, "authorizations": []string{},
			"finalize": base + "/finalize/" + strings.Join(names, ",")}), nil
	case "finalize":
		chain, err := ca.sign(order.CSR)
		if err != nil {
			return nil, err
		}
		ca.mu.Lock()
		defer ca.mu.Unlock()
		ca.signed = append(ca.signed, chain)
		header.Set("Location", base+"/placed/x")
		return ca.Answer(200, header, map[string]any{"status": "valid", "certificate": fmt.Sprintf("%s/cert/%d", base, len(ca.signed)-1)}), nil
	case "cert":
		var n int
		fmt.Sscanf(r.URL.Path, "/cert/%d", &n)
		ca.mu.Lock()
		defer ca.mu.Unlock()
		return ca.Answer(200, http.Header{"Content-Type": {"application/pem-certificate-chain"}}, ca.signed[n]), nil
	}
	return ca.Answer(404, nil, acme.Problem{Type: acme.ProblemTypeMalformed, Status: 404}), nil
}

func (ca *CA) sign(text string) ([]byte, error) {
	der, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	now := ca.Now()
	leaf := &x509.Certificate{
		SerialNumber: devca.NewSerial(), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(ca.Life),
		DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, ca.root, csr.PublicKey, ca.key); err != nil {
		return nil, err
	}
	return append(devca.PEM("CERTIFICATE", der), devca.PEM("CERTIFICATE", ca.root.Raw)...), nil
}

// Placed returns the orders so far: those of name, or all if name is empty.
func (ca *CA) Placed(name string) []Order {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	var out []Order
	for _, o := range ca.orders {
		if name == "" || o.Name == name {
			out = append(out, o)
		}
	}
	return out
}

// Asked returns the number of requests of a kind, as Refuse names them.
func (ca *CA) Asked(what string) int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.requests[what]
}

// Configure returns a TLS.Configure that sends the orders of an issuer to ca. more, if not nil,
// configures the rest.
func (ca *CA) Configure(more func(*certmagic.Config)) func(*certmagic.Config, *certmagic.ACMEIssuer) {
	return func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
		backoff.HTTPClientOf(i).Transport = ca
		cfg.DisableARI = true
		if more != nil {
			more(cfg)
		}
	}
}
