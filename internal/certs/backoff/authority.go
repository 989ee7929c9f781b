package backoff

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/event"
)

const (
	statusTooManyRequests = http.StatusTooManyRequests
	problemBytes          = 64 << 10 // of an authority's answer that are read
)

// authority is the transport of an issuer's requests. It reads how long the authority wants no
// requests (RFC 8555, 6.6), which acmez drops, and holds requests back until then: acmez repeats
// some of them at once.
type authority struct {
	http.RoundTripper
	pauses  *Backoff
	issuer  *certmagic.ACMEIssuer
	observe func(time.Time) // receives the authority's clock
	refused *atomic.Int64   // answers of authorities that were errors
}

// Observe makes an issuer's requests heed the pauses that its authority demands. observe receives
// the authority's clock from its answers, and refused counts answers that are errors. Observe
// reports whether this version of certmagic allows that.
func Observe(issuer *certmagic.ACMEIssuer, p *Backoff, observe func(time.Time), refused *atomic.Int64) bool {
	client := HTTPClientOf(issuer)
	if client == nil {
		return false
	}
	next := client.Transport
	if next == nil {
		next = http.DefaultTransport
	}
	client.Transport = &authority{RoundTripper: next, pauses: p, issuer: issuer, observe: observe, refused: refused}
	return true
}

// HTTPClientOf returns the client of an issuer's requests, nil if this version of certmagic has it
// elsewhere. certmagic exports nothing that leads to it.
func HTTPClientOf(i *certmagic.ACMEIssuer) *http.Client {
	field := reflect.ValueOf(i).Elem().FieldByName("httpClient")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*http.Client]() {
		return nil
	}
	return (*http.Client)(field.UnsafePointer())
}

// RoundTrip sends a request, unless the authority does not want it yet.
func (a *authority) RoundTrip(r *http.Request) (*http.Response, error) {
	q := readQuestion(r)
	if err := a.held(q); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	res, err := a.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	// The answer to a GET may come from a cache.
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil && r.Method != http.MethodGet {
		a.observe(date)
	}
	if res.StatusCode < http.StatusBadRequest {
		if len(q.names) > 0 {
			a.accepted(r.Context(), q)
		}
		return res, nil
	}
	if r.Method == http.MethodGet && r.URL.String() != a.issuer.CA {
		return res, nil // renewal information: no order depends on it
	}
	problem, err := readProblem(res)
	if err != nil {
		return nil, err
	}
	if problem.Type != acme.ProblemTypeBadNonce {
		a.refused.Add(1)
		a.heed(r.Context(), q, res, problem)
	}
	return res, nil
}

// question is what a request is about.
type question struct {
	names      []string // it is an order for these
	account    bool     // it opens an account
	revokes    bool     // it has a certificate revoked, and may be signed by the certificate's key
	changesKey bool     // it gives an account another key
}

// readQuestion reads the body of a request, and leaves it as it is.
func readQuestion(r *http.Request) question {
	if r.Method != http.MethodPost || r.GetBody == nil {
		return question{}
	}
	body, err := r.GetBody()
	if err != nil {
		return question{}
	}
	defer body.Close()
	var jws struct{ Protected, Payload string }
	if json.NewDecoder(body).Decode(&jws) != nil {
		return question{}
	}
	var head struct {
		JWK json.RawMessage `json:"jwk"`
	}
	var order struct {
		Identifiers []acme.Identifier `json:"identifiers"`
		Certificate string            `json:"certificate"`
		Protected   string            `json:"protected"` // of the inner request of a key change
	}
	decode := func(text string, into any) {
		if b, err := base64.RawURLEncoding.DecodeString(text); err == nil {
			json.Unmarshal(b, into) // a body that cannot be read asks for nothing
		}
	}
	decode(jws.Protected, &head)
	decode(jws.Payload, &order)
	q := question{account: head.JWK != nil && order.Certificate == "", revokes: order.Certificate != "", changesKey: order.Protected != ""}
	for _, id := range order.Identifiers {
		q.names = append(q.names, id.Value)
	}
	return q
}

// held returns why a request may not be sent now, nil if it may.
func (a *authority) held(q question) error {
	key := a.issuer.IssuerKey()
	longest, most := a.pauses.Get(ofIssuer(key, "all"))
	if q.account {
		if x, left := a.pauses.Get(ofIssuer(key, "new")); x.Sure && left > most {
			longest, most = x, left
		}
	}
	if q.revokes {
		if x, left := a.pauses.Get(ofIssuer(key, "revoke")); left > most {
			longest, most = x, left
		}
	}
	if q.changesKey {
		if x, left := a.pauses.Get(ofIssuer(key, "keychange")); left > most {
			longest, most = x, left
		}
	}
	for _, name := range q.names {
		if x, left := a.pauses.limit(key, name); left > most {
			longest, most = x, left
		}
	}
	if most <= 0 {
		return nil
	}
	return &Error{Until: time.Now().Round(0).Add(most).Round(time.Second), Why: longest.Err}
}

// readProblem reads the problem document of an answer, and leaves it to be read again.
func readProblem(res *http.Response) (acme.Problem, error) {
	head, err := io.ReadAll(io.LimitReader(res.Body, problemBytes))
	rest := res.Body
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), rest), rest}
	if err != nil {
		return acme.Problem{}, err
	}
	var p acme.Problem
	if json.Unmarshal(head, &p) != nil {
		p = acme.Problem{Detail: string(head[:min(len(head), pauseText)])}
	}
	p.Status = res.StatusCode
	return p, nil
}

// heed records how long the authority wants no requests.
func (a *authority) heed(ctx context.Context, q question, res *http.Response, p acme.Problem) {
	limited := p.Type == acme.ProblemTypeRateLimited || res.StatusCode == statusTooManyRequests
	wait, said := retryAfter(res.Header, time.Now())
	if !limited && (!said || res.StatusCode != http.StatusServiceUnavailable) {
		return
	}
	if !said {
		wait = pauseDefault
	}
	key, x := a.issuer.IssuerKey(), Pause{Wait: wait, Err: p.Error()}
	var where []string
	switch {
	case q.revokes && res.StatusCode != http.StatusServiceUnavailable:
		where = []string{ofIssuer(key, "revoke")}
	case q.changesKey && res.StatusCode != http.StatusServiceUnavailable:
		where = []string{ofIssuer(key, "keychange")}
	case res.StatusCode == http.StatusServiceUnavailable || len(q.names) == 0 && !q.account:
		where = []string{ofIssuer(key, "all")}
	case q.account:
		x.Sure = true
		where = []string{ofIssuer(key, "new")}
	default:
		names, clear := limitedNames(q.names, p)
		x.Name = strings.Join(names, ",")
		for _, name := range names {
			where = append(where, ofIssuerName(key, name))
		}
		if !clear {
			// It is not clear whether the account or the name is limited. One other name may find out.
			old, left := a.pauses.Get(ofIssuer(key, "new"))
			x.Sure = left > 0 && (old.Sure || old.Name != x.Name)
			where = append(where, ofIssuer(key, "new"))
		}
	}
	a.pauses.log.Warn("the authority wants fewer requests",
		"event", event.AuthorityPaused, "issuer", key, "error", p.Error(), "names", q.names, "wait", wait, "said", said)
	for _, place := range where {
		if _, left := a.pauses.Get(place); left < wait || x.Sure {
			a.pauses.put(ctx, place, x)
		}
	}
}

// limitedNames returns which names of an order a limit is about, and whether the authority has said
// so.
func limitedNames(names []string, p acme.Problem) (limited []string, clear bool) {
	for _, sub := range p.Subproblems {
		if slices.Contains(names, sub.Identifier.Value) {
			limited = append(limited, sub.Identifier.Value)
		}
	}
	if len(limited) > 0 {
		return limited, true
	}
	text := strings.ToLower(p.Detail)
	about := strings.Contains(text, "exact set of")
	for _, name := range names {
		for part := strings.TrimPrefix(name, "*."); strings.Contains(part, "."); _, part, _ = strings.Cut(part, ".") {
			about = about || strings.Contains(text, `"`+part+`"`) || strings.Contains(text, part+" ") || strings.HasSuffix(text, part)
		}
	}
	return names, about
}

// accepted records that the authority accepts orders: only a name was limited.
func (a *authority) accepted(ctx context.Context, q question) {
	key := ofIssuer(a.issuer.IssuerKey(), "new")
	if x, left := a.pauses.Get(key); left > 0 && !x.Sure && x.Name != strings.Join(q.names, ",") {
		a.pauses.Drop(ctx, key)
	}
}

// retryAfter returns the pause of the header (RFC 9110, 10.2.3). A date is compared with the
// authority's own clock.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, pauseLongest), true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), pauseLongest), true
}
