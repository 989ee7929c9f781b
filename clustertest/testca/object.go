package testca

import (
	"crypto/x509"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// order is an order that was accepted. The authority's mutex guards it, and what follows.
type order struct {
	id      string
	who     *account
	names   []acme.Identifier
	authz   []*authorization
	expires time.Time
	chain   string // the number of its certificate; empty: there is none yet
	placed  *Order
}

// authorization is the permission of an account to have certificates for a name.
type authorization struct {
	id         string
	who        *account
	name       acme.Identifier // without "*."
	wildcard   bool
	state      string
	expires    time.Time
	challenges []*challenge
}

// challenge is a way to prove that an account controls a name.
type challenge struct {
	id        string
	of        *authorization
	kind      string
	token     string
	state     string
	validated time.Time
	failure   *acme.Problem
}

// status returns the status of an order (RFC 8555, 7.1.6).
func (o *order) status(now time.Time) string {
	if o.chain != "" {
		return acme.StatusValid
	}
	state := acme.StatusReady
	for _, z := range o.authz {
		switch z.state {
		case acme.StatusValid:
		case acme.StatusPending:
			state = acme.StatusPending
		default:
			return acme.StatusInvalid
		}
	}
	if !now.Before(o.expires) {
		return acme.StatusInvalid
	}
	return state
}

// failure returns why an order is invalid, nil if no challenge says it.
func (o *order) failure() *acme.Problem {
	for _, z := range o.authz {
		for _, c := range z.challenges {
			if c.failure != nil {
				return c.failure
			}
		}
	}
	return nil
}

// answer returns the order as it is sent.
func (o *order) answer(x *exchange, status int, now time.Time) *answer {
	body := struct {
		Status         string            `json:"status"`
		Expires        time.Time         `json:"expires"`
		Identifiers    []acme.Identifier `json:"identifiers"`
		Authorizations []string          `json:"authorizations"`
		Finalize       string            `json:"finalize"`
		Certificate    string            `json:"certificate,omitempty"`
		Replaces       string            `json:"replaces,omitempty"`
		Error          *acme.Problem     `json:"error,omitempty"`
	}{
		Status: o.status(now), Expires: o.expires.UTC().Truncate(time.Second), Identifiers: o.names, Authorizations: []string{},
		Finalize: x.base + "/" + string(Finalize) + "/" + o.id, Replaces: o.placed.Replaces, Error: o.failure(),
	}
	for _, z := range o.authz {
		body.Authorizations = append(body.Authorizations, x.base+"/"+string(Authorize)+"/"+z.id)
	}
	if o.chain != "" {
		body.Certificate = x.base + "/" + string(Download) + "/" + o.chain
	}
	return &answer{status: status, header: http.Header{"Location": {x.base + "/" + string(PollOrder) + "/" + o.id}}, body: body}
}

// body returns the challenge as it is sent.
func (c *challenge) body(x *exchange) any {
	body := struct {
		Type      string        `json:"type"`
		URL       string        `json:"url"`
		Status    string        `json:"status"`
		Token     string        `json:"token"`
		Validated string        `json:"validated,omitempty"`
		Error     *acme.Problem `json:"error,omitempty"`
	}{Type: c.kind, URL: x.base + "/" + string(Challenge) + "/" + c.id, Status: c.state, Token: c.token, Error: c.failure}
	if !c.validated.IsZero() {
		body.Validated = c.validated.UTC().Format(time.RFC3339)
	}
	return body
}

// certificate is a certificate that was signed. The authority's mutex guards it.
type certificate struct {
	leaf     *x509.Certificate
	who      *account
	id       string // of renewal information
	replaced bool   // by another one, whose order named it
}

func (c *certificate) serial() string { return c.leaf.SerialNumber.Text(16) }
