// Package redact takes what is secret out of texts that are shown to others.
//
// A [Redactor] knows some secrets, and finds each in every form in which programs write bytes:
// plain, in hexadecimal digits, in base64, and in the text form of a secret, also when it was
// broken into lines. It does not know other secrets. Those it finds by what they look like, and by
// what stands before them: passwords in URLs, PEM blocks, values behind names such as "token",
// e-mail addresses, and long random words. So it may take out too much, and it cannot find a short
// password in the middle of a sentence. Callers must not rely on it alone, and leave out what is
// secret by its kind.
package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strings"
)

// Mark stands where something was taken out.
const Mark = "[redacted]"

// Redactor takes secrets out of texts. It does not change, so goroutines may share it.
type Redactor struct {
	known []*regexp.Regexp
	rules []rule
}

type rule struct {
	find    *regexp.Regexp
	replace string                 // as for regexp.ReplaceAllString
	keep    func(word string) bool // nil: nothing that was found is kept
}

// gap is what may stand between two characters of a secret that was broken into lines.
const gap = `(?:\s|\\n|\\r)*`

// New returns a Redactor that knows some secrets: bytes, and texts in which letters may be in upper
// or lower case.
func New(secrets [][]byte, texts []string) *Redactor {
	r := &Redactor{rules: rules()}
	know := func(flags, text string) {
		var b strings.Builder
		b.WriteString(flags)
		for i, c := range []byte(text) {
			if i > 0 {
				b.WriteString(gap)
			}
			b.WriteString(regexp.QuoteMeta(string(rune(c))))
		}
		r.known = append(r.known, regexp.MustCompile(b.String()))
	}
	for _, s := range secrets {
		if len(s) == 0 {
			continue
		}
		know("(?i)", hex.EncodeToString(s))
		know("", base64.RawStdEncoding.EncodeToString(s))
		know("", base64.RawURLEncoding.EncodeToString(s))
		r.rules = append(r.rules, rule{find: regexp.MustCompile(regexp.QuoteMeta(string([]rune(string(s))))), replace: Mark})
	}
	for _, text := range texts {
		if text != "" {
			know("(?i)", text)
		}
	}
	return r
}

func rules() []rule {
	return []rule{
		{find: regexp.MustCompile(`(?s)-----BEGIN [^-]*-----.*?(?:-----END [^-]*-----|$)`), replace: Mark},
		{find: regexp.MustCompile(`(?i)flt1_(?:` + gap + `[a-z0-9]){1,59}`), replace: Mark},
		{find: regexp.MustCompile(`://[^/\s"'@]*@`), replace: "://" + Mark + "@"},
		{find: regexp.MustCompile(`(://[^\s"'?#]*)[?#][^\s"']+`), replace: "${1}?" + Mark},
		{find: regexp.MustCompile(`(?i)\b(bearer|basic)\s+[^\s"',;]+`), replace: "$1 " + Mark},
		{find: regexp.MustCompile(`(?i)([\w.-]*(?:secret|passw|passphrase|token|api[_-]?key|access[_-]?key|hmac|credential|private[_-]?key|authorization)[\w.-]*["']?\s*[:=]\s*["']?)([^\s"',;&]+)`), replace: "$1" + Mark},
		// Behind the slash is the name of an account's file, which repeats a part of the address.
		{find: regexp.MustCompile(`[\w.%+-]*[A-Za-z][\w.%+-]*@[\w.-]*\w\.[A-Za-z]{2,}(?:/[\w.%+-]+)?`), replace: Mark, keep: unit},
		{find: regexp.MustCompile(`[A-Za-z0-9+/_-]{43,}={0,2}`), replace: Mark, keep: ordinary},
	}
}

// unit reports whether a word is the name of a unit of systemd, which may have an @ too.
func unit(word string) bool {
	return strings.HasSuffix(word, ".service") || strings.HasSuffix(word, ".socket")
}

// ordinary reports whether a long word is no random one: it has no digit, no letter, or it is the
// name of a file.
func ordinary(word string) bool {
	digits, letters := strings.ContainsAny(word, "0123456789"), strings.ContainsAny(strings.ToLower(word), "abcdefghijklmnopqrstuvwxyz")
	file := strings.HasPrefix(word, "/") && strings.Count(word, "/") > 2 && !strings.ContainsAny(word, "+=")
	return !digits || !letters || file
}

// Text returns a text without secrets.
func (r *Redactor) Text(text string) string {
	text = r.Known(text)
	for _, rule := range r.rules {
		if rule.keep == nil {
			text = rule.find.ReplaceAllString(text, rule.replace)
			continue
		}
		text = rule.find.ReplaceAllStringFunc(text, func(word string) string {
			if rule.keep(word) {
				return word
			}
			return rule.replace
		})
	}
	return text
}

// Known returns a text without the secrets that the Redactor knows. It is for long texts that have
// no others by their kind.
func (r *Redactor) Known(text string) string {
	for _, k := range r.known {
		text = k.ReplaceAllString(text, Mark)
	}
	return text
}

// JSON returns a JSON text whose strings, names among them, have no secrets. It is indented.
func (r *Redactor) JSON(text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return json.MarshalIndent(r.value(v), "", "\t")
}

func (r *Redactor) value(v any) any {
	switch v := v.(type) {
	case string:
		return r.Text(v)
	case []any:
		for i := range v {
			v[i] = r.value(v[i])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, x := range v {
			out[r.Text(name)] = r.value(x)
		}
		return out
	}
	return v
}
