package testca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

const (
	validationTimeout = 10 * time.Second
	maxProof          = 1024 // bytes of an answer to HTTP-01
	drainTime         = time.Millisecond
)

// refused is a validation that failed. Its kind is that of a problem.
type refused struct {
	kind string
	err  error
}

func (r *refused) Error() string { return r.err.Error() }
func (r *refused) Unwrap() error { return r.err }

func refuse(kind, format string, args ...any) error {
	return &refused{kind, fmt.Errorf(format, args...)}
}

// validate validates a challenge whose key authorization is proof.
func (a *Authority) validate(c *challenge, proof string) {
	if d := time.Duration(a.delay.Load()); d > 0 {
		time.Sleep(d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), validationTimeout)
	defer cancel()
	a.drain()
	var err error
	switch c.kind {
	case HTTP01:
		err = a.validateHTTP(ctx, c, proof)
	case TLSALPN01:
		err = a.validateTLS(ctx, c, proof)
	case DNS01:
		err = a.validateDNS(ctx, c, proof)
	}
	name := c.of.name.Value
	if c.of.wildcard {
		name = "*." + name
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.validations = append(a.validations, Validation{At: time.Now(), Name: name, Challenge: c.kind, Err: err})
	if err == nil {
		c.state, c.validated = acme.StatusValid, a.Now()
		if c.of.state == acme.StatusPending {
			c.of.state = acme.StatusValid
		}
		return
	}
	kind := "serverInternal"
	if r := (*refused)(nil); errors.As(err, &r) {
		kind = r.kind
	}
	c.state = acme.StatusInvalid
	c.failure = &acme.Problem{Type: acme.ProblemTypeNamespace + kind, Detail: err.Error(), Status: http.StatusForbidden}
	if c.of.state == acme.StatusPending {
		c.of.state = acme.StatusInvalid
	}
}

// drain takes the connections of certmagic's solvers from the port that is held for them, so that
// the kernel's queue does not fill up. They are closed already.
func (a *Authority) drain() {
	a.held.SetDeadline(time.Now().Add(drainTime))
	for {
		conn, err := a.held.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// capitals returns a name as the authority writes it. See the package comment for why.
func capitals(name string) string { return strings.ToUpper(name) }

// dial connects to what a challenge is about.
func (a *Authority) dial(ctx context.Context, host, port string) (net.Conn, error) {
	if a.cfg.Dial == nil {
		return nil, errors.New("the authority of this test has no Dial")
	}
	return a.cfg.Dial(ctx, "tcp", net.JoinHostPort(strings.ToLower(host), port))
}

// validateHTTP validates by HTTP-01 (RFC 8555, 8.3).
func (a *Authority) validateHTTP(ctx context.Context, c *challenge, proof string) error {
	host := capitals(c.of.name.Value)
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	client := &http.Client{Transport: &http.Transport{
		// The transport's own context may outlive the request.
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return a.dial(ctx, host, port)
		},
		// A redirect may lead to https, and the certificate there need not be valid.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/.well-known/acme-challenge/"+c.token, nil)
	if err != nil {
		return refuse("malformed", "%w", err)
	}
	res, err := client.Do(r)
	if err != nil {
		return refuse("connection", "%w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxProof))
	if err != nil {
		return refuse("connection", "%w", err)
	}
	if res.StatusCode != http.StatusOK {
		return refuse("unauthorized", "%s answered %s", c.of.name.Value, res.Status)
	}
	if got := string(bytes.TrimSpace(text)); got != proof {
		return refuse("unauthorized", "%s answered %.80q instead of the key authorization", c.of.name.Value, got)
	}
	return nil
}

// validateTLS validates by TLS-ALPN-01 (RFC 8737, 3).
func (a *Authority) validateTLS(ctx context.Context, c *challenge, proof string) error {
	name := c.of.name.Value
	conn, err := a.dial(ctx, name, "443")
	if err != nil {
		return refuse("connection", "%w", err)
	}
	defer conn.Close()
	asked, ip := capitals(name), netip.Addr{}
	if c.of.name.Type == "ip" {
		if ip, err = netip.ParseAddr(name); err != nil {
			return refuse("malformed", "%w", err)
		}
		asked = capitals(reverse(ip)) // RFC 8738, 6
	}
	client := tls.Client(conn, &tls.Config{
		ServerName: asked, NextProtos: []string{acmez.ACMETLS1Protocol}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
	})
	if err := client.HandshakeContext(ctx); err != nil {
		return refuse("tls", "the handshake with %s: %w", name, err)
	}
	state := client.ConnectionState()
	if state.NegotiatedProtocol != acmez.ACMETLS1Protocol {
		return refuse("unauthorized", "%s does not speak %s", name, acmez.ACMETLS1Protocol)
	}
	return checkProof(state.PeerCertificates[0], name, ip, proof)
}

// checkProof checks the certificate that answers a TLS-ALPN-01 challenge. A valid ip is what is
// validated, in place of name.
func checkProof(leaf *x509.Certificate, name string, ip netip.Addr, proof string) error {
	right := len(leaf.DNSNames) == 1 && strings.EqualFold(leaf.DNSNames[0], name) && len(leaf.IPAddresses) == 0
	if ip.IsValid() {
		right = len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 1 && leaf.IPAddresses[0].Equal(ip.AsSlice())
	}
	if !right {
		return refuse("unauthorized", "the certificate of %s is for other names", name)
	}
	sum := sha256.Sum256([]byte(proof))
	want, err := asn1.Marshal(sum[:])
	if err != nil {
		return err
	}
	for _, e := range leaf.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) { // id-pe-acmeIdentifier
			if !e.Critical || !bytes.Equal(e.Value, want) {
				return refuse("unauthorized", "the certificate of %s proves something else", name)
			}
			return nil
		}
	}
	return refuse("unauthorized", "the certificate of %s proves nothing", name)
}

// reverse returns the name of an address in the DNS (RFC 1035, 3.5, and RFC 3596, 2.5).
func reverse(ip netip.Addr) string {
	var labels []string
	suffix := "in-addr.arpa"
	if ip.Is4() {
		for _, b := range ip.AsSlice() {
			labels = append(labels, fmt.Sprint(b))
		}
	} else {
		suffix = "ip6.arpa"
		for _, b := range ip.AsSlice() {
			labels = append(labels, fmt.Sprintf("%x", b>>4), fmt.Sprintf("%x", b&15))
		}
	}
	slices.Reverse(labels)
	return strings.Join(labels, ".") + "." + suffix
}

// validateDNS validates by DNS-01 (RFC 8555, 8.4).
func (a *Authority) validateDNS(ctx context.Context, c *challenge, proof string) error {
	name := "_acme-challenge." + c.of.name.Value
	if a.cfg.TXT == nil {
		return refuse("dns", "the authority of this test has no TXT")
	}
	texts, err := a.cfg.TXT(ctx, name)
	if err != nil {
		return refuse("dns", "the records of %s: %w", name, err)
	}
	sum := sha256.Sum256([]byte(proof))
	if !slices.Contains(texts, base64.RawURLEncoding.EncodeToString(sum[:])) {
		return refuse("unauthorized", "none of the %d TXT records of %s is the right one", len(texts), name)
	}
	return nil
}
