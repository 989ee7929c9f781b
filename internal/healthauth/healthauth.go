// Package healthauth keeps those out of a health port who do not know its token.
//
// A request has the token as a bearer token (RFC 6750), as Prometheus and scripts send it, or as
// the password of HTTP Basic (RFC 7617) with any user name. A browser asks its user for that, and
// sends it with all later requests to the port, those of the page's script among them.
//
// # Guarantees
//
//   - How long a refusal takes does not depend on how much of the token was right.
//   - No answer and no error has the token, or a part of it, or what was sent in its place.
//
// # Assumptions
//
// The port speaks plain HTTP, so the token does not keep out who reads the network. The token is a
// long random word: nothing slows down those who guess.
package healthauth

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
)

// MinLength is how many characters a token has at least.
const MinLength = 16

const remedy = `; make one with "openssl rand -hex 32"`

// The errors of Check.
var (
	ErrShort = errors.New("it has fewer than 16 characters" + remedy)
	ErrForm  = errors.New("it has white space, or characters that are not of ASCII" + remedy)
)

// Check says what is wrong with the form of a token.
func Check(token string) error {
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return ErrForm
	}
	if len(token) < MinLength {
		return ErrShort
	}
	return nil
}

// Require returns a handler that passes to next the requests that have the token, and refuses the
// others with status 401. An empty token returns next itself.
func Require(token string, next http.Handler) http.Handler {
	if token == "" {
		return next
	}
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, ok := tokenOf(r)
		got := sha256.Sum256([]byte(sent))
		if ok && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			next.ServeHTTP(w, r)
			return
		}
		refuse(w, ok)
	})
}

// tokenOf returns the token that a request has, and whether it has one.
func tokenOf(r *http.Request) (token string, ok bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

// refuse says how to be let in.
func refuse(w http.ResponseWriter, sent bool) {
	h := w.Header()
	// Basic comes first: some clients look at one line only, and browsers know no other scheme.
	h.Add("WWW-Authenticate", `Basic realm="flotilla health port", charset="UTF-8"`)
	h.Add("WWW-Authenticate", `Bearer realm="flotilla health port"`)
	h.Set("Cache-Control", "no-store")
	what := "This port asks for a token"
	if sent {
		what = "This is not the token of this node"
	}
	http.Error(w, what+`. Send the value of FLOTILLA_HEALTH_TOKEN (Config.HealthToken) of the node as "Authorization: Bearer TOKEN", `+
		"or as the password of HTTP Basic with any user name. /livez and /readyz need none.", http.StatusUnauthorized)
}
