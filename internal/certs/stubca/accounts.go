package stubca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"

	"github.com/mholt/acmez/v3/acme"
)

// registered is an account.
type registered struct {
	url    string
	key    *ecdsa.PublicKey
	closed bool
}

// Revocation is what the authority knows of a certificate that it has revoked.
type Revocation struct {
	Reason int  // of RFC 5280
	ByKey  bool // the request was signed by the certificate's own key
}

// message is a request as ACME signs it.
type message struct {
	Protected string `json:"protected"`
	Payload   string `json:"payload"`
	Signature string `json:"signature"`
}

func (m message) payload() []byte {
	b, _ := base64.RawURLEncoding.DecodeString(m.Payload)
	return b
}

// head returns the account that has signed, or else the key.
func (m message) head() (account string, key *ecdsa.PublicKey) {
	var h struct {
		Kid string
		JWK json.RawMessage
	}
	b, _ := base64.RawURLEncoding.DecodeString(m.Protected)
	if json.Unmarshal(b, &h) != nil {
		return "", nil
	}
	return h.Kid, readJWK(h.JWK)
}

func readJWK(text []byte) *ecdsa.PublicKey {
	var k struct{ X, Y string }
	if json.Unmarshal(text, &k) != nil || k.X == "" {
		return nil
	}
	x, _ := base64.RawURLEncoding.DecodeString(k.X)
	y, _ := base64.RawURLEncoding.DecodeString(k.Y)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil
	}
	return key
}

// isBy reports whether the private half of key has signed m.
func (m message) isBy(key *ecdsa.PublicKey) bool {
	sig, err := base64.RawURLEncoding.DecodeString(m.Signature)
	if err != nil || key == nil || len(sig) != 64 {
		return false
	}
	sum := sha256.Sum256([]byte(m.Protected + "." + m.Payload))
	return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}

// find returns the account of a key, nil if there is none. ca.mu is held.
func (ca *CA) find(key *ecdsa.PublicKey) *registered {
	for _, a := range ca.accounts {
		if a.key.Equal(key) {
			return a
		}
	}
	return nil
}

// account opens an account, or finds one.
func (ca *CA) account(base string, m message) *http.Response {
	_, key := m.head()
	if !m.isBy(key) {
		return ca.Problem(400, "malformed", "the signature is wrong", "")
	}
	var want struct{ OnlyReturnExisting bool }
	json.Unmarshal(m.payload(), &want)
	ca.mu.Lock()
	defer ca.mu.Unlock()
	a, status := ca.find(key), http.StatusOK
	switch {
	case a == nil && want.OnlyReturnExisting:
		return ca.Problem(400, "accountDoesNotExist", "there is no account with this key", "")
	case a == nil:
		// Another authority at the same address does not know it.
		raw, _ := key.Bytes()
		sum := sha256.Sum256(raw)
		a, status = &registered{url: fmt.Sprintf("%s/kid/%d-%x", base, len(ca.accounts)+1, sum[:4]), key: key}, http.StatusCreated
		ca.accounts = append(ca.accounts, a)
	case a.closed:
		return ca.Problem(403, "unauthorized", "the account is deactivated", "")
	}
	return ca.Answer(status, http.Header{"Location": {a.url}}, map[string]string{"status": "valid"})
}

// signer returns the account that has signed m, or a refusal.
func (ca *CA) signer(m message) (*registered, *http.Response) {
	kid, _ := m.head()
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for _, a := range ca.accounts {
		switch {
		case a.url != kid:
		case a.closed:
			return nil, ca.Problem(401, "unauthorized", "the account is deactivated", "")
		case !m.isBy(a.key):
			return nil, ca.Problem(400, "malformed", "the signature is wrong", "")
		default:
			return a, nil
		}
	}
	return nil, ca.Problem(400, "accountDoesNotExist", "there is no such account", "")
}

// close deactivates an account, if that is what m asks for.
func (ca *CA) close(a *registered, m message) *http.Response {
	var want acme.Account
	json.Unmarshal(m.payload(), &want)
	ca.mu.Lock()
	defer ca.mu.Unlock()
	a.closed = want.Status == "deactivated"
	return ca.Answer(200, http.Header{"Location": {a.url}}, want)
}

// changeKey gives an account another key (RFC 8555, 7.3.5).
func (ca *CA) changeKey(a *registered, m message) *http.Response {
	var inner message
	var change struct {
		Account string
		OldKey  json.RawMessage
	}
	if json.Unmarshal(m.payload(), &inner) != nil || json.Unmarshal(inner.payload(), &change) != nil {
		return ca.Problem(400, "malformed", "no change of a key", "")
	}
	_, key := inner.head()
	ca.mu.Lock()
	defer ca.mu.Unlock()
	old := readJWK(change.OldKey)
	switch other := ca.find(key); {
	case !inner.isBy(key) || change.Account != a.url || old == nil || !a.key.Equal(old):
		return ca.Problem(400, "malformed", "the change of a key is wrong", "")
	case other != nil:
		return ca.Answer(409, http.Header{"Location": {other.url}}, acme.Problem{Type: acme.ProblemTypeMalformed, Status: 409, Detail: "the key is in use"})
	}
	a.key = key
	return ca.Answer(200, nil, map[string]string{"status": "valid"})
}

// revoke revokes a certificate (RFC 8555, 7.6).
func (ca *CA) revoke(m message) *http.Response {
	var want struct {
		Certificate string
		Reason      int
	}
	json.Unmarshal(m.payload(), &want)
	der, _ := base64.RawURLEncoding.DecodeString(want.Certificate)
	leaf, err := x509.ParseCertificate(der)
	if err != nil || leaf.CheckSignatureFrom(ca.root) != nil {
		return ca.Problem(404, "malformed", "no certificate of this authority", "")
	}
	_, key := m.head()
	if key != nil && !(m.isBy(key) && key.Equal(leaf.PublicKey.(crypto.PublicKey))) {
		return ca.Problem(403, "unauthorized", "another key", "")
	}
	if key == nil {
		if _, refusal := ca.signer(m); refusal != nil {
			return refusal
		}
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	serial := leaf.SerialNumber.Text(16)
	if _, again := ca.revoked[serial]; again {
		return ca.Problem(400, "alreadyRevoked", "it was revoked before", "")
	}
	ca.revoked[serial] = Revocation{Reason: want.Reason, ByKey: key != nil}
	return ca.Answer(200, nil, nil)
}

// Accounts returns the number of accounts that were opened.
func (ca *CA) Accounts() int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return len(ca.accounts)
}

// Knows reports whether a key is that of an account that is not closed.
func (ca *CA) Knows(key crypto.Signer) bool {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	public, ok := key.Public().(*ecdsa.PublicKey)
	a := (*registered)(nil)
	if ok {
		a = ca.find(public)
	}
	return a != nil && !a.closed
}

// Live returns the number of accounts that are not closed.
func (ca *CA) Live() (n int) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for _, a := range ca.accounts {
		if !a.closed {
			n++
		}
	}
	return n
}

// Forget makes the authority lose an account, as if somebody else had changed its key.
func (ca *CA) Forget(key crypto.Signer) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for _, a := range ca.accounts {
		if a.key.Equal(key.Public()) {
			a.key = &ca.key.PublicKey
		}
	}
}

// Revoked returns what is known of the certificate with a serial number, in hexadecimal digits.
func (ca *CA) Revoked(serial string) (Revocation, bool) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	r, ok := ca.revoked[strings.ToLower(serial)]
	return r, ok
}

// Revoke revokes a certificate for another reason than a key that is known to others.
func (ca *CA) Revoke(serial string) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.revoked[serial] = Revocation{Reason: acme.ReasonSuperseded}
}
