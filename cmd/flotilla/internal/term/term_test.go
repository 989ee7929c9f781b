package term

import (
	"bytes"
	"strings"
	"testing"
)

// Wide tables lose the ends of their widest cells, narrow columns lose nothing.
func TestTableFits(t *testing.T) {
	table := NewTable("NAME", "STATE", "TEXT")
	table.Row("n1", "ready", Good, strings.Repeat("x", 200))
	table.Row("n2", "", "y")
	var out bytes.Buffer
	table.Write(&out, Style{})
	want := "NAME  STATE  TEXT\n" +
		"n1    ready  " + strings.Repeat("x", Columns-14) + "…\n" +
		"n2           y\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A text that is higher than the screen is cut.
func TestRedraw(t *testing.T) {
	for height, want := range map[int]string{
		0: "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\nc\x1b[K\nd\x1b[K\n\x1b[J",
		5: "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\nc\x1b[K\nd\x1b[K\n\x1b[J",
		4: "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\n… and 2 more lines\x1b[K\n\x1b[J",
	} {
		var out bytes.Buffer
		Redraw(&out, "a\nb\nc\nd\n", height, true)
		if got := out.String(); got != want {
			t.Errorf("%d lines: %q, want %q", height, got, want)
		}
	}
}
