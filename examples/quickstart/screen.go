package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
)

// screen writes the output. On a terminal it has colours, and a last line that changes while the
// program waits. Elsewhere it has plain lines. It is for one goroutine.
type screen struct {
	out   io.Writer
	moves bool // a line may be overwritten
	color bool

	shown time.Time // the time of the moving line; zero: there is none
}

// Colours, as in ECMA-48, section 8.3.117.
const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
)

// labelWidth is the width of the column of labels.
const labelWidth = 13

// newScreen returns a screen on out. It calls unseen when it can no longer write. It uses no
// colours if NO_COLOR is set (https://no-color.org).
func newScreen(out *os.File, unseen func()) *screen {
	terminal := (isatty.IsTerminal(out.Fd()) || isatty.IsCygwinTerminal(out.Fd())) && os.Getenv("TERM") != "dumb"
	return &screen{out: watched{out, unseen}, moves: terminal, color: terminal && os.Getenv("NO_COLOR") == ""}
}

// watched is a writer that calls failed when writing to it fails.
type watched struct {
	w      io.Writer
	failed func()
}

func (w watched) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.failed()
	}
	return n, err
}

func (s *screen) paint(color, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// act writes the heading of an act.
func (s *screen) act(n int, text string) {
	s.clear()
	fmt.Fprintf(s.out, "\n%s\n", s.paint(bold, fmt.Sprintf("%d  %s", n, text)))
}

// line writes a fact under a label.
func (s *screen) line(label, format string, args ...any) {
	s.clear()
	fmt.Fprintf(s.out, "   %s%s\n", s.paint(dim, pad(label, labelWidth)), fmt.Sprintf(format, args...))
}

// text writes text as it is.
func (s *screen) text(text string) {
	s.clear()
	fmt.Fprintln(s.out, text)
}

// moving writes the moving line, as often as an eye can follow.
func (s *screen) moving(label, format string, args ...any) {
	const step = 80 * time.Millisecond
	if !s.moves || time.Since(s.shown) < step {
		return
	}
	s.shown = time.Now()
	text := []rune(fmt.Sprintf(format, args...))
	text = text[:min(len(text), 64)] // one line of a narrow terminal: only that can be overwritten
	fmt.Fprintf(s.out, "\r\x1b[K   %s", s.paint(dim, pad(label, labelWidth)+string(text)))
}

// clear removes the moving line.
func (s *screen) clear() {
	if !s.shown.IsZero() {
		s.shown = time.Time{}
		fmt.Fprint(s.out, "\r\x1b[K")
	}
}

// result is a line of the closing table.
type result struct {
	what, want, seen string
	held             bool
}

// table writes the closing table. It returns true if every line held.
func (s *screen) table(results []result) bool {
	s.clear()
	all := true
	row := func(what, want, seen, mark string) {
		fmt.Fprintf(s.out, "   %s%s%s%s\n", pad(what, 46), pad(want, 8), pad(seen, 22), mark)
	}
	fmt.Fprintf(s.out, "   %s\n", s.paint(dim, pad("", 46)+pad("wanted", 8)+"seen"))
	for _, r := range results {
		mark := s.paint(green, "held")
		if !r.held {
			mark, all = s.paint(red, "DID NOT HOLD"), false
		}
		row(r.what, r.want, r.seen, mark)
	}
	return all
}

// pad fills text with spaces up to width characters, and leaves at least one.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(1, width-utf8.RuneCountInString(text)))
}

// span formats a duration for people.
func span(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// size formats a number of bytes for people.
func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
