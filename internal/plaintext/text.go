package plaintext

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Safe returns a text that a terminal may get: quoted if it has characters that are not printable.
// Among them are control characters, line breaks and marks that change the direction of writing.
func Safe(text string) string {
	printable := func(r rune) bool { return unicode.IsPrint(r) && r != unicode.ReplacementChar }
	if strings.ContainsFunc(text, func(r rune) bool { return !printable(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// Span returns a duration in one unit, rounded down.
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// Size returns a number of bytes in one unit, rounded down.
func Size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// ShortID returns the first eight characters of an ID. They distinguish it from others in practice.
func ShortID(id string) string { return id[:min(8, len(id))] }
