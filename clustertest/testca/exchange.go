package testca

import (
	"net/http"

	"github.com/mholt/acmez/v3/acme"
)

// exchange is a request with what is known of it.
type exchange struct {
	method string
	base   string // of URLs
	path   string
	op     Operation
	id     string   // what follows op in the path
	msg    *message // nil unless it is a POST
	who    *account // that has signed; nil: none was asked for
}

// account is an account of a client. The authority's mutex guards it.
type account struct {
	id      string
	key     *verifier
	contact []string
	closed  bool
}

// answer returns the account as it is sent.
func (w *account) answer(x *exchange, status int) *answer {
	state := acme.StatusValid
	if w.closed {
		state = acme.StatusDeactivated
	}
	return &answer{
		status: status,
		header: http.Header{"Location": {x.base + "/" + string(UpdateAccount) + "/" + w.id}},
		body:   acme.Account{Status: state, Contact: w.contact},
	}
}
