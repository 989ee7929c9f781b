package testca

import (
	"fmt"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// Operation is a kind of request. It is the first part of the path of its URL.
type Operation string

// The operations of ACME.
const (
	Directory     Operation = "directory"
	NewNonce      Operation = "nonce"
	NewAccount    Operation = "account"
	UpdateAccount Operation = "kid" // also to deactivate it
	KeyChange     Operation = "keychange"
	NewOrder      Operation = "order"
	PollOrder     Operation = "placed"
	Authorize     Operation = "authz" // looks at an authorization, or deactivates it
	Challenge     Operation = "challenge"
	Finalize      Operation = "finalize"
	Download      Operation = "cert"
	Revoke        Operation = "revoke"
	RenewalInfo   Operation = "renewalinfo"
)

// Request is what a client asks of an authority.
type Request struct {
	Op    Operation // what it asks for
	Names []string  // of NewOrder
}

// Refusal is an answer that is an error.
type Refusal struct {
	Status     int    // of HTTP
	Kind       string // of the problem, such as "rateLimited"; empty: it is no problem document
	Detail     string // for people
	RetryAfter string // the header: seconds or a date; empty: there is none
}

// Problem returns a refusal with a problem document (RFC 7807). An empty retryAfter says nothing of
// when to try again.
func Problem(status int, kind, detail, retryAfter string) *Refusal {
	return &Refusal{Status: status, Kind: kind, Detail: detail, RetryAfter: retryAfter}
}

// answer returns the refusal as it is sent.
func (r *Refusal) answer() *answer {
	header := http.Header{"Content-Type": {"text/html"}}
	if r.RetryAfter != "" {
		header.Set("Retry-After", r.RetryAfter)
	}
	if r.Kind == "" {
		return &answer{status: r.Status, header: header, body: []byte(r.Detail)}
	}
	header.Set("Content-Type", "application/problem+json")
	return &answer{
		status: r.Status, header: header,
		body: acme.Problem{Type: acme.ProblemTypeNamespace + r.Kind, Detail: r.Detail, Status: r.Status},
	}
}

// limit is a time in which an operation is refused.
type limit struct {
	until time.Time
	told  bool // a client has been told
	early int  // requests after that
}

// methods returns the methods of an operation, none if there is no such operation.
func methods(op Operation) []string {
	switch op {
	case Directory, RenewalInfo:
		return []string{http.MethodGet}
	case NewNonce:
		return []string{http.MethodHead, http.MethodGet}
	case NewAccount, UpdateAccount, KeyChange, NewOrder, PollOrder, Authorize, Challenge, Finalize, Download, Revoke:
		return []string{http.MethodPost}
	}
	return nil
}

// answer is what the authority answers.
type answer struct {
	status int
	header http.Header // may be nil
	body   any         // bytes are sent as they are, nil is sent as nothing, the rest as JSON
}

// problem returns an answer that is an error.
func problem(status int, kind, format string, args ...any) *answer {
	return Problem(status, kind, fmt.Sprintf(format, args...), "").answer()
}
