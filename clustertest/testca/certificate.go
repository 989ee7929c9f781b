package testca

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

const (
	backdated  = time.Hour // how long a certificate is valid before it is signed
	revokedAgo = time.Hour // the window of a revoked certificate begins that long ago
)

// readRequest reads the certificate request of an order. It must be for the names of the order.
func readRequest(text string, names []acme.Identifier) (*x509.CertificateRequest, error) {
	der, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, err
	}
	var want, got []string
	for _, i := range names {
		want = append(want, i.Value)
	}
	for _, name := range csr.DNSNames {
		got = append(got, strings.ToLower(name))
	}
	for _, ip := range csr.IPAddresses {
		got = append(got, ip.String())
	}
	if name := strings.ToLower(csr.Subject.CommonName); name != "" && !slices.Contains(got, name) {
		got = append(got, name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return nil, errors.New("it is not for the names of the order")
	}
	return csr, nil
}

// sign signs what a client has requested.
func (a *Authority) sign(csr *x509.CertificateRequest, names []acme.Identifier) (*x509.Certificate, error) {
	now := a.Now()
	leaf := &x509.Certificate{
		SerialNumber: devca.NewSerial(), NotBefore: now.Add(-backdated), NotAfter: now.Add(time.Duration(a.lifetime.Load())),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, i := range names {
		if i.Type == "ip" {
			leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(i.Value))
		} else {
			leaf.DNSNames = append(leaf.DNSNames, i.Value)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.root, csr.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// finalize signs the certificate of an order (RFC 8555, 7.4).
func (a *Authority) finalize(x *exchange) *answer {
	var want struct {
		CSR string `json:"csr"`
	}
	if err := decode(x.msg.payload, &want); err != nil {
		return problem(http.StatusBadRequest, "malformed", "%v", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.orders[x.id]
	if o == nil || o.who != x.who {
		return problem(http.StatusNotFound, "malformed", "the account has no such order")
	}
	if state := o.status(a.Now()); state != acme.StatusReady {
		return problem(http.StatusForbidden, "orderNotReady", "the order is %s", state)
	}
	csr, err := readRequest(want.CSR, o.names)
	if err != nil {
		return problem(http.StatusBadRequest, "badCSR", "the request: %v", err)
	}
	if x.who.key.is(csr.PublicKey) {
		return problem(http.StatusBadRequest, "badCSR", "the request has the key of the account")
	}
	if o.placed.Replaces != "" {
		if ans := a.checkReplaces(x, o.placed.Replaces); ans != nil {
			return ans
		}
	}
	leaf, err := a.sign(csr, o.names)
	if err != nil {
		return problem(http.StatusInternalServerError, "serverInternal", "%v", err)
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil {
		return problem(http.StatusInternalServerError, "serverInternal", "%v", err)
	}
	if old := a.identified(o.placed.Replaces); old != nil {
		old.replaced = true
	}
	o.chain, o.placed.Certificate = strconv.Itoa(a.number()), leaf
	a.signed[o.chain] = &certificate{leaf: leaf, who: x.who, id: id}
	return o.answer(x, http.StatusOK, a.Now())
}

// identified returns the certificate with an identifier of renewal information, nil if there is
// none. a.mu is held.
func (a *Authority) identified(id string) *certificate {
	for _, c := range a.signed {
		if c.id == id {
			return c
		}
	}
	return nil
}

// checkReplaces returns the answer to an order that may not replace a certificate (RFC 9773, 5),
// nil if it may. a.mu is held.
func (a *Authority) checkReplaces(x *exchange, id string) *answer {
	switch old := a.identified(id); {
	case old == nil || old.who != x.who:
		return problem(http.StatusBadRequest, "malformed", "the account has no certificate that could be replaced")
	case old.replaced:
		return problem(http.StatusConflict, "alreadyReplaced", "the certificate was replaced before")
	}
	return nil
}

// download sends a certificate with its chain (RFC 8555, 7.4.2).
func (a *Authority) download(x *exchange) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.signed[x.id]
	if c == nil || c.who != x.who {
		return problem(http.StatusNotFound, "malformed", "the account has no such certificate")
	}
	return &answer{
		status: http.StatusOK,
		header: http.Header{"Content-Type": {"application/pem-certificate-chain"}},
		body:   slices.Concat(devca.PEM("CERTIFICATE", c.leaf.Raw), devca.PEM("CERTIFICATE", a.root.Raw)),
	}
}

// revokeFor revokes a certificate for a client (RFC 8555, 7.6).
func (a *Authority) revokeFor(x *exchange) *answer {
	var want struct {
		Certificate string `json:"certificate"`
		Reason      int    `json:"reason"`
	}
	if err := decode(x.msg.payload, &want); err != nil {
		return problem(http.StatusBadRequest, "malformed", "%v", err)
	}
	if want.Reason < 0 || want.Reason > acme.ReasonAACompromise || want.Reason == 7 {
		return problem(http.StatusBadRequest, "badRevocationReason", "there is no reason %d", want.Reason)
	}
	der, err := base64.RawURLEncoding.DecodeString(want.Certificate)
	if err != nil {
		return problem(http.StatusBadRequest, "malformed", "%v", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil || leaf.CheckSignatureFrom(a.root) != nil {
		return problem(http.StatusNotFound, "malformed", "it is no certificate of this authority")
	}
	if x.who == nil {
		key, err := decodeKey(x.msg.JWK)
		if err != nil {
			return problem(http.StatusBadRequest, "badPublicKey", "%v", err)
		}
		if ans := refuseSignature(key.verify(x.msg)); ans != nil {
			return ans
		}
		if !key.is(leaf.PublicKey) {
			return problem(http.StatusForbidden, "unauthorized", "the key is not that of the certificate")
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if x.who != nil && !a.mayRevoke(x.who, leaf) {
		return problem(http.StatusForbidden, "unauthorized", "the account has not ordered the certificate")
	}
	serial := leaf.SerialNumber.Text(16)
	if _, again := a.revoked[serial]; again {
		return problem(http.StatusBadRequest, "alreadyRevoked", "it was revoked before")
	}
	a.revoked[serial] = Revocation{Reason: want.Reason, ByKey: x.who == nil}
	return &answer{status: http.StatusOK}
}

// mayRevoke reports whether an account has ordered a certificate. A trusting authority lets every
// account revoke: all of them would be allowed to order it. a.mu is held.
func (a *Authority) mayRevoke(who *account, leaf *x509.Certificate) bool {
	if a.cfg.Trusting {
		return true
	}
	for _, c := range a.signed {
		if c.who == who && c.leaf.Equal(leaf) {
			return true
		}
	}
	return false
}

// renewalInfo says when a certificate should be renewed (RFC 9773, 4).
func (a *Authority) renewalInfo(x *exchange) *answer {
	a.mu.Lock()
	c := a.identified(x.id)
	if c == nil {
		a.mu.Unlock()
		return problem(http.StatusNotFound, "malformed", "there is no such certificate")
	}
	window, set := a.windows[c.serial()]
	_, revoked := a.revoked[c.serial()]
	a.mu.Unlock()
	switch {
	case revoked:
		window[0] = a.Now().Add(-revokedAgo)
		window[1] = window[0].Add(revokedAgo / 2)
	case !set:
		window[0], window[1] = a.cfg.Window(c.leaf)
	}
	var info struct {
		SuggestedWindow struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
	}
	info.SuggestedWindow.Start, info.SuggestedWindow.End = window[0].UTC(), window[1].UTC()
	return &answer{
		status: http.StatusOK, header: http.Header{"Retry-After": {strconv.Itoa(int(a.cfg.LookAgain / time.Second))}}, body: info,
	}
}
