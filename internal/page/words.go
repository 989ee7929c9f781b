package page

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// The greatest lengths of texts, in characters.
const (
	maxName  = 60   // a node, a role, a domain
	maxNote  = 300  // a sentence in a table
	maxText  = 2000 // a problem
	maxTitle = 4000 // a whole text that was cut
)

// text is a text that others have chosen, made harmless. Full is the whole of it if it was cut.
type text struct{ Short, Full string }

// cut returns a text with at most so many characters.
func cut(s string, most int) text {
	short, all := shorten(s, most)
	if all {
		return text{Short: plaintext.Safe(short)}
	}
	full, all := shorten(s, maxTitle)
	if full = plaintext.Safe(full); !all {
		full += "…"
	}
	return text{Short: plaintext.Safe(short) + "…", Full: full}
}

// shorten returns the first characters of a text, and whether these are all.
func shorten(s string, most int) (string, bool) {
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i], false
		}
	}
	return s, true
}

// moment is a time in words.
type moment struct {
	Machine string // for the attribute datetime
	Text    string // UTC
	Ago     string // "3 min ago", "in 61 d"
}

// at returns a time in words. That of the zero time is empty.
func at(t, now time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	t = t.UTC()
	m := moment{Machine: t.Format(time.RFC3339), Text: t.Format(time.DateTime)}
	switch d := now.Sub(t); {
	case d >= time.Second:
		m.Ago = plaintext.Span(d) + " ago"
	case d > -time.Second:
		m.Ago = "now"
	default:
		m.Ago = "in " + plaintext.Span(-d)
	}
	return m
}

// day is at without the time of day.
func day(t, now time.Time) moment {
	m := at(t, now)
	if m.Text != "" {
		m.Text = t.UTC().Format(time.DateOnly)
	}
	return m
}

// lasted returns a length of time in words. Short ones keep a digit behind the point.
func lasted(d time.Duration) string {
	if d >= 0 && d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return plaintext.Span(d)
}

// sentence returns a text that begins with a capital letter. The point at its end is for the
// template.
func sentence(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return ""
	}
	return string(unicode.ToUpper(r)) + s[size:]
}

// count returns a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// percent returns a part of a whole as an attribute of SVG needs it: "54.2%".
func percent(part, whole float64) string {
	share := 0.0
	if whole > 0 {
		share = min(max(100*part/whole, 0), 100)
	}
	return strconv.FormatFloat(share, 'f', 2, 64) + "%"
}

// key identifies a row among its neighbours, so that the script finds it again.
func key(parts ...string) string {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return strconv.FormatUint(h.Sum64(), 36)
}

// words returns what a grade asks for.
func words(g view.Grade) string {
	switch g {
	case view.Good:
		return "good"
	case view.Odd:
		return "worth a look"
	}
	return "to do"
}

// first returns at most so many of a list, and how many it leaves out.
func first[T any](all []T, most int) (some []T, more int) {
	some = all[:min(len(all), most)]
	return some, len(all) - len(some)
}
