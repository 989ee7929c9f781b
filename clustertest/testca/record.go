package testca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"slices"
	"strings"
)

// Placed returns the orders so far, in their order, refused ones too: those for name, or all if
// name is empty. Several names of an order are joined by commas.
func (a *Authority) Placed(name string) []Order {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Order
	for _, o := range a.placed {
		if name == "" || strings.Join(o.Names, ",") == name {
			out = append(out, *o)
		}
	}
	return out
}

// Issued returns the certificates so far, in their order: those for name, or all if name is empty.
func (a *Authority) Issued(name string) []*x509.Certificate {
	var out []*x509.Certificate
	for _, o := range a.Placed(name) {
		if o.Certificate != nil {
			out = append(out, o.Certificate)
		}
	}
	return out
}

// Validations returns the validations that have ended, in their order.
func (a *Authority) Validations() []Validation {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.validations)
}

// Asked returns the number of requests for an operation, refused ones too.
func (a *Authority) Asked(op Operation) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests[op]
}

// Accounts returns the number of accounts that were opened.
func (a *Authority) Accounts() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.accounts)
}

// Live returns the number of accounts that are not deactivated.
func (a *Authority) Live() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.accounts {
		if !x.closed {
			n++
		}
	}
	return n
}

// Knows reports whether a key is that of an account that is not deactivated.
func (a *Authority) Knows(key crypto.Signer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.find(key.Public())
	return x != nil && !x.closed
}

// Forget makes the authority lose an account, as if somebody else had changed its key.
func (a *Authority) Forget(key crypto.Signer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.find(key.Public()); x != nil {
		x.key = &verifier{key: a.key.Public().(*ecdsa.PublicKey)}
	}
}

// Revoked returns what is known of the certificate with a serial number, in hexadecimal digits. It
// reports whether the certificate is revoked.
func (a *Authority) Revoked(serial string) (Revocation, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.revoked[strings.ToLower(serial)]
	return r, ok
}

// Revoke revokes the certificate with a serial number, in hexadecimal digits, without being asked.
// Reason is that of RFC 5280. Renewal information then wants it to be renewed at once.
func (a *Authority) Revoke(serial string, reason int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked[strings.ToLower(serial)] = Revocation{Reason: reason}
}
