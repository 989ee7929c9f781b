package term

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Redraw shows a text in place of what the screen shows. The first call for a screen clears it. A
// text that is higher than the screen is cut. Height 0 means unknown.
func Redraw(w io.Writer, text string, height int, first bool) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if fit := height - 1; height > 2 && len(lines) > fit {
		lines = append(lines[:fit-1], fmt.Sprintf("… and %d more lines", len(lines)-fit+1))
	}
	if first {
		fmt.Fprint(w, "\x1b[2J")
	}
	fmt.Fprint(w, "\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J")
}
