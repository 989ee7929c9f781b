package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	raw := bytes.Repeat([]byte{0xff, 0xfe, 'a', 3}, 8)
	text := "flt1_" + strings.Repeat("abc4567", 8) + "xyz"
	r := New([][]byte{raw, nil}, []string{text, ""})
	split := func(s string) string { return s[:9] + "\n\t" + s[9:20] + "\r\n" + s[20:] }
	for _, tc := range []struct{ name, text, want string }{
		{"bytes", "a " + string(raw) + " b", "a " + Mark + " b"},
		{"hexadecimal", "a " + hex.EncodeToString(raw) + " b", "a " + Mark + " b"},
		{"upper case", "a " + strings.ToUpper(hex.EncodeToString(raw)) + " b", "a " + Mark + " b"},
		{"in lines", "a " + split(hex.EncodeToString(raw)) + " b", "a " + Mark + " b"},
		{"base64", "a " + base64.RawStdEncoding.EncodeToString(raw) + " b", "a " + Mark + " b"},
		{"base64 in lines", "a " + split(base64.RawURLEncoding.EncodeToString(raw)) + " b", "a " + Mark + " b"},
		{"the text form", "a " + text + " b", "a " + Mark + " b"},
		{"the text form in lines", "a " + split(strings.ToUpper(text)) + " b", "a " + Mark + " b"},
		{"the beginning of another secret", "a flt1_abcd", "a " + Mark},
		{"a key", "a\n-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----\nb", "a\n" + Mark + "\nb"},
		{"a key that was cut", "a -----BEGIN PRIVATE KEY-----\nMHc", "a " + Mark},
		{"a password in a URL", "get https://u:p@h.test/x: refused", "get https://" + Mark + "@h.test/x: refused"},
		{"the query of a URL", "get https://h.test/x?sig=1&y=2 failed", "get https://h.test/x?" + Mark + " failed"},
		{"a header", "Authorization: Bearer abc, x", "Authorization: " + Mark + " " + Mark + ", x"},
		{"a value behind its name", "api_key=abc; aws_secret_access_key: def", "api_key=" + Mark + "; aws_secret_access_key: " + Mark},
		{"a long random word", "a " + strings.Repeat("aB3", 15) + " b", "a " + Mark + " b"},
		{"an e-mail address", "contact=[mailto:jo.doe+x@mail.example.com] status=valid", "contact=[mailto:" + Mark + "] status=valid"},
		{"an account", "load acme/ca.test-directory/users/jo@example.com/jo.json: gone", "load acme/ca.test-directory/users/" + Mark + ": gone"},

		{"a floating address", "192.0.2.100/24@eth0 is at n1", ""},
		{"a floating address on a bridge", "192.0.2.100/24@br0.lan and fd00::1/64@br0.lan", ""},
		{"a unit", "the unit api@n1.service has ended", ""},
		{"a module", "github.com/caddyserver/certmagic@v0.25.1 is linked", ""},
		{"a node", "the node 8f92ea7c0077aba30a58e97c21c3ceb4 at 10.0.0.1:7373", ""},
		{"a fingerprint", "it has another cluster secret (its key ID 7bf2c2414f7e4a41, ours 7bf2c2414f7e4a42)", ""},
		{"a revision", "vcs.revision 50b0157aa7c5ee882ed82bab68edd266507050b0", ""},
		{"a file", "open /var/lib/containers/storage/volumes/flotilla1/data/raft.db: no space left", ""},
		{"a URL", "https://acme-v02.api.letsencrypt.org/directory does not answer", ""},
		{"a sentence", "2 of 3 voters are there, so no other may fail", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.want == "" {
				tc.want = tc.text
			}
			if got := r.Text(tc.text); got != tc.want {
				t.Errorf("%q becomes %q, want %q", tc.text, got, tc.want)
			}
			in, err := json.Marshal(map[string]any{"a": []string{tc.text}, "n": 12345678901234567})
			if err != nil {
				t.Fatal(err)
			}
			out, err := r.JSON(in)
			var got struct {
				A []string
				N json.Number
			}
			if err == nil {
				err = json.Unmarshal(out, &got)
			}
			if err != nil || len(got.A) != 1 || got.A[0] != tc.want || got.N != "12345678901234567" {
				t.Errorf("in JSON it becomes %s: %v", out, err)
			}
		})
	}
	out, err := r.JSON([]byte(`{"password=x":1}`))
	if err != nil || !strings.Contains(string(out), Mark) {
		t.Errorf("a name becomes %s: %v", out, err)
	}
	if out, err := r.JSON([]byte("{")); err == nil { // any error: of the JSON
		t.Errorf("no JSON becomes %s", out)
	}
}
