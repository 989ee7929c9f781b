package flotilla

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
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/mholt/acmez/v3/acme"
)

// stubCA is an ACME authority in memory, the transport of issuers. It believes whoever asks. It takes down each order, and refuses
// what refuse says.
type stubCA struct {
	refuse func(what string, names []string) *http.Response // what: directory, nonce, account, order, finalize, cert; nil: nothing is refused
	ahead  atomic.Int64                                     // of the right time
	life   time.Duration                                    // of a certificate

	url  string // of its directory; acmez remembers those of a process
	key  *ecdsa.PrivateKey
	root *x509.Certificate

	mu       sync.Mutex
	orders   []stubOrder
	requests map[string]int // by what
	accounts int
	signed   [][]byte // chains
}

// stubOrder is one that was placed.
type stubOrder struct {
	at   time.Time
	name string
}

func newStubCA(t *testing.T) *stubCA {
	t.Helper()
	ca := &stubCA{life: 90 * 24 * time.Hour, requests: make(map[string]int), url: "https://stub-" + devca.NewSerial().Text(36) + ".example/directory"}
	var err error
	if ca.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: devca.NewSerial(), Subject: pkix.Name{CommonName: "stub"}, NotBefore: time.Unix(0, 0),
		NotAfter: time.Now().AddDate(100, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, root, root, ca.key.Public(), ca.key)
	if err == nil {
		ca.root, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func (ca *stubCA) now() time.Time {
	return time.Now().Add(time.Duration(ca.ahead.Load()))
}

// set sets the authority's clock.
func (ca *stubCA) set(ahead time.Duration) { ca.ahead.Store(int64(ahead)) }

// answer makes a response.
func (ca *stubCA) answer(status int, header http.Header, body any) *http.Response {
	var b bytes.Buffer
	if pem, ok := body.([]byte); ok {
		b.Write(pem)
	} else if body != nil {
		json.NewEncoder(&b).Encode(body)
	}
	h := http.Header{"Date": {ca.now().UTC().Format(http.TimeFormat)}, "Replay-Nonce": {"n"}, "Content-Type": {"application/json"}}
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

// problem refuses with a problem of ACME and, if after is not empty, a Retry-After.
func (ca *stubCA) problem(status int, kind, detail, after string) *http.Response {
	h := http.Header{}
	if after != "" {
		h.Set("Retry-After", after)
	}
	return ca.answer(status, h, acme.Problem{Type: acme.ProblemTypeNamespace + kind, Detail: detail, Status: status})
}

// RoundTrip answers as an authority does.
func (ca *stubCA) RoundTrip(r *http.Request) (*http.Response, error) {
	base := "https://" + r.URL.Host
	what := strings.Split(strings.Trim(r.URL.Path, "/"), "/")[0]
	var payload []byte
	if r.Body != nil {
		var jws struct{ Payload string }
		if err := json.NewDecoder(r.Body).Decode(&jws); err != nil {
			return nil, err
		}
		r.Body.Close()
		payload, _ = base64.RawURLEncoding.DecodeString(jws.Payload)
	}
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
		ca.orders = append(ca.orders, stubOrder{time.Now(), strings.Join(names, ",")})
	}
	ca.mu.Unlock()
	if ca.refuse != nil {
		if res := ca.refuse(what, names); res != nil {
			return res, nil
		}
	}
	header := http.Header{}
	switch what {
	case "directory":
		return ca.answer(200, http.Header{"Replay-Nonce": nil}, map[string]string{"newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/order"}), nil
	case "nonce":
		return ca.answer(200, nil, nil), nil
	case "account":
		ca.mu.Lock()
		defer ca.mu.Unlock()
		ca.accounts++
		header.Set("Location", fmt.Sprintf("%s/kid/%d", base, ca.accounts))
		return ca.answer(201, header, map[string]string{"status": "valid"}), nil
	case "order":
		header.Set("Location", base+"/placed/"+strings.Join(names, ","))
		return ca.answer(201, header, map[string]any{"status": "ready", "identifiers": order.Identifiers, "authorizations": []string{},
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
		return ca.answer(200, header, map[string]any{"status": "valid", "certificate": fmt.Sprintf("%s/cert/%d", base, len(ca.signed)-1)}), nil
	case "cert":
		var n int
		fmt.Sscanf(r.URL.Path, "/cert/%d", &n)
		ca.mu.Lock()
		defer ca.mu.Unlock()
		return ca.answer(200, http.Header{"Content-Type": {"application/pem-certificate-chain"}}, ca.signed[n]), nil
	}
	return ca.answer(404, nil, acme.Problem{Type: acme.ProblemTypeMalformed, Status: 404}), nil
}

func (ca *stubCA) sign(text string) ([]byte, error) {
	der, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	now := ca.now()
	leaf := &x509.Certificate{SerialNumber: devca.NewSerial(), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(ca.life), DNSNames: csr.DNSNames,
		IPAddresses: csr.IPAddresses, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, ca.root, csr.PublicKey, ca.key); err != nil {
		return nil, err
	}
	return append(devca.PEM("CERTIFICATE", der), devca.PEM("CERTIFICATE", ca.root.Raw)...), nil
}

// placed returns the orders so far; of name, if that is not empty.
func (ca *stubCA) placed(name string) []stubOrder {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	var out []stubOrder
	for _, o := range ca.orders {
		if name == "" || o.name == name {
			out = append(out, o)
		}
	}
	return out
}

// asked returns how many requests there were of a kind.
func (ca *stubCA) asked(what string) int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.requests[what]
}

// configure makes the authority's issuer that of a node. What else is to be configured comes after.
func (ca *stubCA) configure(more func(*certmagic.Config)) func(*certmagic.Config, *certmagic.ACMEIssuer) {
	return func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
		backoff.HTTPClientOf(i).Transport = ca
		cfg.DisableARI = true
		if more != nil {
			more(cfg)
		}
	}
}
