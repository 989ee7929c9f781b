package healthauth

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const token = "0123456789abcdef:x/+="

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name, token string
		want        error
	}{
		{"long enough", strings.Repeat("x", MinLength), nil},
		{"with signs", token, nil},
		{"empty", "", ErrShort},
		{"one character too short", strings.Repeat("x", MinLength-1), ErrShort},
		{"a blank", "0123456789abcdef x", ErrForm},
		{"a line end", token + "\n", ErrForm},
		{"a control character", token + "\x7f", ErrForm},
		{"an umlaut", token + "ä", ErrForm},
		{"no text", token + "\xff", ErrForm},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := Check(tc.token); err != tc.want {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

func TestRequire(t *testing.T) {
	basic := func(userPassword string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(userPassword))
	}
	for _, tc := range []struct {
		name, header string
		says         string // empty: the request passes
	}{
		{"bearer", "Bearer " + token, ""},
		{"bearer in lower case", "bearer  " + token + " ", ""},
		{"basic", basic("me:" + token), ""},
		{"basic in upper case", "BASIC " + basic("me:" + token)[6:], ""},
		{"basic without a user", basic(":" + token), ""},
		{"nothing", "", "This port asks for a token. Send "},
		{"another scheme", "Digest " + token, "This port asks for a token. Send "},
		{"no scheme", token, "This port asks for a token. Send "},
		{"an empty bearer", "Bearer", "This is not the token of this node. Send "},
		{"a wrong bearer", "Bearer " + token + "x", "This is not the token of this node. Send "},
		{"a part of it", "Bearer " + token[1:], "This is not the token of this node. Send "},
		{"upper case", "Bearer " + strings.ToUpper(token), "This is not the token of this node. Send "},
		{"the token as the user", basic(token + ":"), "This is not the token of this node. Send "},
		{"a wrong password", basic("me:" + token[:16]), "This is not the token of this node. Send "},
		{"basic that is none", "Basic " + token, "This port asks for a token. Send "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := Require(token, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "in") }))
			r, w := httptest.NewRequest("GET", "/status", nil), httptest.NewRecorder()
			if tc.header != "" {
				r.Header.Set("Authorization", tc.header)
			}
			h.ServeHTTP(w, r)
			body := w.Body.String()
			if tc.says == "" {
				if w.Code != http.StatusOK || body != "in" {
					t.Errorf("it is refused with %d: %s", w.Code, body)
				}
				return
			}
			if w.Code != http.StatusUnauthorized || !strings.HasPrefix(body, tc.says) || strings.Contains(body, token[1:8]) {
				t.Errorf("status %d: %s", w.Code, body)
			}
			want := []string{`Basic realm="flotilla health port", charset="UTF-8"`, `Bearer realm="flotilla health port"`}
			if diff := cmp.Diff(want, w.Header().Values("WWW-Authenticate")); diff != "" {
				t.Errorf("WWW-Authenticate (-want +got):\n%s", diff)
			}
		})
	}
}

// Without a token everybody is let in.
func TestNoToken(t *testing.T) {
	w := httptest.NewRecorder()
	Require("", http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("status %d", w.Code)
	}
}
