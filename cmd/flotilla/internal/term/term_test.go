package term

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0 s", 90 * time.Second: "90 s", 2 * time.Minute: "2 min", 119 * time.Minute: "119 min",
		2 * time.Hour: "2 h", 47 * time.Hour: "47 h", 48 * time.Hour: "2 d",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 10239: "10239 bytes", 10240: "10 KiB", 11 << 20: "11 MiB"} {
		if got := Size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestSafe(t *testing.T) {
	for text, want := range map[string]string{"n1": "n1", "größe": "größe", "a\x1b[2J": `"a\x1b[2J"`, "\xff": `"\xff"`, "a\nb": `"a\nb"`} {
		if got := Safe(text); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

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
