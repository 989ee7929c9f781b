package testca

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// fixture is the example of RFC 7515, A.3: a signature with ES256. RFC 7638 has no thumbprint of
// that key; the one of the RSA key below is its example.
const (
	exampleHead = `{"alg":"ES256"}`
	exampleKey  = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",` +
		`"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	examplePayload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt" +
		"cGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	exampleSignature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSA" +
		"pmWQxfKTUJqPP3-Kg6NU1Q"
	exampleRSA = `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4` +
		`cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXA` +
		`rwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5` +
		`hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44` +
		`-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`
	exampleThumb = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
)

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// wrapped returns a message in the form in which it is sent.
func wrapped(t testing.TB, head, payload, signature string) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]string{"protected": head, "payload": payload, "signature": signature})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestExamplesOfTheRFCs(t *testing.T) {
	key, err := decodeKey([]byte(exampleKey))
	if err != nil {
		t.Fatal(err)
	}
	m := &message{
		protected: protected{Alg: "ES256"},
		input:     []byte(encode(exampleHead) + "." + examplePayload),
	}
	if m.signature, err = base64.RawURLEncoding.DecodeString(exampleSignature); err != nil {
		t.Fatal(err)
	}
	if err := key.verify(m); err != nil {
		t.Errorf("the example of RFC 7515: %v", err)
	}
	m.input[0]++
	if err := key.verify(m); err != errSignature {
		t.Errorf("another message with that signature: %v", err)
	}
	m.Alg = "ES384"
	if err := key.verify(m); err != errAlgorithm {
		t.Errorf("another algorithm: %v", err)
	}
	rsa, err := decodeKey([]byte(exampleRSA))
	if err != nil {
		t.Fatal(err)
	}
	if rsa.thumb != exampleThumb {
		t.Errorf("the thumbprint of the example of RFC 7638 is %s, want %s", rsa.thumb, exampleThumb)
	}
}

func TestMessagesThatAreRefused(t *testing.T) {
	kid := encode(`{"kid":"x"}`)
	for _, tc := range []struct{ name, text, want string }{
		{"no JSON", "x", "no flattened JWS"},
		{"no base64", string(wrapped(t, "?", "", "")), "the protected header: illegal base64"},
		{"no header", string(wrapped(t, encode("x"), "", "")), "the protected header: invalid character"},
		{"payload", string(wrapped(t, kid, "?", "")), "the payload"},
		{"signature", string(wrapped(t, kid, "", "?")), "the signature"},
		{"no signer", string(wrapped(t, encode("{}"), "", "")), "one of kid and jwk"},
		{"two signers", string(wrapped(t, encode(`{"kid":"x","jwk":{}}`), "", "")), "one of kid and jwk"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := decodeMessage([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"no JSON", "x", "the key: invalid character"},
		{"kind", `{"kty":"oct"}`, "neither EC nor RSA"},
		{"curve", strings.Replace(exampleKey, "P-256", "P-224", 1), "an unknown curve"},
		{"length", strings.Replace(exampleKey, "P-256", "P-384", 1), "coordinates of a wrong length"},
		{"not on the curve", strings.Replace(exampleKey, `"x":"f8`, `"x":"g8`, 1), "the key: "},
		{"no base64", strings.Replace(exampleKey, `"x":"f8`, `"x":"?8`, 1), "illegal base64"},
		{"short", `{"kty":"RSA","n":"AQAB","e":"AQAB"}`, "the key has 17 bits"},
		{"even exponent", strings.Replace(exampleRSA, `"AQAB"`, `"AQAA"`, 1), "a wrong exponent"},
		{"exponent 1", strings.Replace(exampleRSA, `"AQAB"`, `"AQ"`, 1), "a wrong exponent"},
		{"large exponent", strings.Replace(exampleRSA, `"AQAB"`, `"AQAAAAAAAAAB"`, 1), "a wrong exponent"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := decodeKey([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(wrapped(f, encode(`{"alg":"ES256","kid":"x","nonce":"y","url":"z"}`), examplePayload, exampleSignature))
	f.Add(wrapped(f, encode(`{"alg":"ES256","jwk":`+exampleKey+`}`), examplePayload, exampleSignature))
	f.Add(wrapped(f, encode(`{"alg":"RS256","jwk":`+exampleRSA+`}`), "", exampleSignature))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decodeMessage(text)
		if err != nil {
			return
		}
		key, err := decodeKey(m.JWK)
		if err != nil {
			return
		}
		if key.thumb == "" {
			t.Error("a key without a thumbprint")
		}
		key.verify(m)
	})
}

// A request of any form is answered, and changes nothing unless it is signed.
func FuzzRequests(f *testing.F) {
	for _, op := range []Operation{
		Directory, NewNonce, NewAccount, UpdateAccount, KeyChange, NewOrder, PollOrder, Authorize, Challenge,
		Finalize, Download, Revoke, RenewalInfo,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			f.Add(method, string(op)+"/1", `{"identifiers":[{"type":"dns","value":"a.example"}],"csr":"","certificate":"AA"}`, exampleKey)
		}
	}
	f.Fuzz(func(t *testing.T, method, path, payload, key string) {
		a := New(t, Config{})
		const host = "ca.example"
		head, err := json.Marshal(map[string]any{"alg": "ES256", "nonce": a.nonce(), "url": "https://" + host + "/" + path, "jwk": json.RawMessage("{}")})
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(head), `"jwk":{}`, `"jwk":`+key, 1)
		status, header, _ := a.respond(method, host, "/"+path, wrapped(t, encode(text), encode(payload), exampleSignature))
		if status < 200 || status > 599 || header.Get("Date") == "" {
			t.Errorf("status %d, %v", status, header)
		}
		if a.Accounts() != 0 || len(a.Issued("")) != 0 || len(a.revoked) != 0 {
			t.Error("a request that is not signed has changed something")
		}
	})
}
