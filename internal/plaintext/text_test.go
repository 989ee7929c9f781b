package plaintext

import (
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0 s", 90 * time.Second: "90 s", 2 * time.Minute: "2 min", 119 * time.Minute: "119 min",
		2 * time.Hour: "2 h", 47 * time.Hour: "47 h", 48 * time.Hour: "2 d",
	} {
		t.Run(want, func(t *testing.T) {
			if got := Span(d); got != want {
				t.Errorf("%v is %q, want %q", d, got, want)
			}
		})
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 10239: "10239 bytes", 10240: "10 KiB", 11 << 20: "11 MiB"} {
		t.Run(want, func(t *testing.T) {
			if got := Size(n); got != want {
				t.Errorf("%d is %q, want %q", n, got, want)
			}
		})
	}
}

func TestSafe(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"a name":             {"n1", "n1"},
		"another language":   {"größe", "größe"},
		"an escape sequence": {"a\x1b[2J", `"a\x1b[2J"`},
		"no UTF-8":           {"\xff", `"\xff"`},
		"a line break":       {"a\nb", `"a\nb"`},
		"from right to left": {"a\u202eb", `"a\u202eb"`},
		"an isolate":         {"a\u2066b", `"a\u2066b"`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Safe(test.text); got != test.want {
				t.Errorf("%q is %s, want %s", test.text, got, test.want)
			}
		})
	}
}

func TestShortID(t *testing.T) {
	for id, want := range map[string]string{"": "", "5f3a": "5f3a", "5f3a9c01d2e84b77": "5f3a9c01"} {
		t.Run(id, func(t *testing.T) {
			if got := ShortID(id); got != want {
				t.Errorf("%q is %q, want %q", id, got, want)
			}
		})
	}
}
