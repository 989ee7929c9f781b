package term

import (
	"fmt"
	"io"
)

// Hue is the colour of a text, by its meaning. Its value is the SGR parameter.
type Hue string

// The hues.
const (
	Plain  Hue = ""
	Strong Hue = "1"
	Good   Hue = "32"
	Odd    Hue = "33" // worth a look
	Bad    Hue = "31"
)

// Style colours text. The zero Style does not.
type Style struct {
	On bool // colour the text
}

// Paint returns the text in a hue.
func (s Style) Paint(text string, h Hue) string {
	if !s.On || h == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(h) + "m" + text + "\x1b[0m"
}

// Line writes a value behind its name, which takes width characters.
func (s Style) Line(w io.Writer, width int, name, format string, args ...any) {
	fmt.Fprintf(w, "%s%s\n", s.Paint(fmt.Sprintf("%-*s", width, name), Strong), fmt.Sprintf(format, args...))
}
