package testca

import (
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/mholt/acmez/v3/acme"
)

// find returns the account of a key, nil if there is none. a.mu is held.
func (a *Authority) find(key crypto.PublicKey) *account {
	for _, w := range a.accounts {
		if w.key.is(key) {
			return w
		}
	}
	return nil
}

// newAccount opens an account, or finds one (RFC 8555, 7.3).
func (a *Authority) newAccount(x *exchange) *answer {
	key, err := decodeKey(x.msg.JWK)
	if err != nil {
		return problem(http.StatusBadRequest, "badPublicKey", "%v", err)
	}
	if ans := refuseSignature(key.verify(x.msg)); ans != nil {
		return ans
	}
	var want struct {
		Contact            []string `json:"contact"`
		OnlyReturnExisting bool     `json:"onlyReturnExisting"`
	}
	if err := decode(x.msg.payload, &want); err != nil {
		return problem(http.StatusBadRequest, "malformed", "%v", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	who := a.find(key.key)
	switch {
	case who != nil && who.closed:
		return problem(http.StatusForbidden, "unauthorized", "the account is deactivated")
	case who != nil:
		return who.answer(x, http.StatusOK)
	case want.OnlyReturnExisting:
		return problem(http.StatusBadRequest, "accountDoesNotExist", "there is no account with this key")
	}
	// Another authority at the same address does not know it.
	sum := sha256.Sum256([]byte(key.thumb))
	who = &account{id: fmt.Sprintf("%d-%x", a.number(), sum[:4]), key: key, contact: want.Contact}
	a.accounts = append(a.accounts, who)
	return who.answer(x, http.StatusCreated)
}

// updateAccount changes or deactivates an account (RFC 8555, 7.3.2 and 7.3.6).
func (a *Authority) updateAccount(x *exchange) *answer {
	var want struct {
		Status  string    `json:"status"`
		Contact *[]string `json:"contact"`
	}
	if err := decode(x.msg.payload, &want); err != nil {
		return problem(http.StatusBadRequest, "malformed", "%v", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if x.who.id != x.id {
		return problem(http.StatusForbidden, "unauthorized", "it is the account of somebody else")
	}
	if want.Contact != nil {
		x.who.contact = *want.Contact
	}
	x.who.closed = want.Status == acme.StatusDeactivated
	return x.who.answer(x, http.StatusOK)
}

// changeKey gives an account another key (RFC 8555, 7.3.5).
func (a *Authority) changeKey(x *exchange) *answer {
	bad := func(err error) *answer {
		return problem(http.StatusBadRequest, "malformed", "the inner message: %v", err)
	}
	inner, err := decodeMessage(x.msg.payload)
	if err != nil {
		return bad(err)
	}
	var change struct {
		Account string          `json:"account"`
		OldKey  json.RawMessage `json:"oldKey"`
	}
	if err := decode(inner.payload, &change); err != nil {
		return bad(err)
	}
	key, err := decodeKey(inner.JWK)
	if err == nil {
		err = key.verify(inner)
	}
	if err != nil {
		return bad(err)
	}
	old, err := decodeKey(change.OldKey)
	if err != nil {
		return bad(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if change.Account != x.msg.Kid || inner.URL != x.msg.URL || !x.who.key.is(old.key) {
		return problem(http.StatusBadRequest, "malformed", "the change of a key is for another account, or from another key")
	}
	if other := a.find(key.key); other != nil {
		return &answer{
			status: http.StatusConflict,
			header: http.Header{
				"Location":     {x.base + "/" + string(UpdateAccount) + "/" + other.id},
				"Content-Type": {"application/problem+json"},
			},
			body: acme.Problem{Type: acme.ProblemTypeMalformed, Status: http.StatusConflict, Detail: "the key is in use"},
		}
	}
	x.who.key = key
	return x.who.answer(x, http.StatusOK)
}
