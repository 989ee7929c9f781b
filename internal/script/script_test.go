package script

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// failures collects what a script complains about.
type failures struct{ texts []string }

func (f *failures) Helper() {}

func (f *failures) Errorf(format string, args ...any) {
	f.texts = append(f.texts, fmt.Sprintf(format, args...))
}

// Fatalf ends the script, as that of a *testing.T ends the test.
func (f *failures) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	panic(f)
}

// play runs a script with one command: say WORD times=N.
func play(t *testing.T, text string, rewrite bool) (failed, after string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var f failures
	func() {
		defer func() {
			if r := recover(); r != nil && r != any(&f) {
				panic(r)
			}
		}()
		Run(&f, path, rewrite, func(c *Command) string {
			if c.Name != "say" {
				c.Fatalf("unknown")
			}
			return strings.Repeat(c.Arg()+"\n", int(c.Uint("times", 1)))
		})
	}()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(f.texts, "\n"), string(b)
}

func TestRun(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       string // part of the complaint; empty: there is none
	}{
		{"right", "# twice\nsay a\nsay b times=2\n----\na\nb\nb\n\nsay c\n----\nc\n", ""},
		{"nothing is printed", "say a times=0\n----\n", ""},
		{"another output", "say a\n----\nb\n", "script.txt:2"},
		{"more output", "say a times=2\n----\na\n", "script.txt:2"},
		{"an unknown command", "sing a\n----\n", "script.txt:1: sing: unknown"},
		{"an argument is missing", "say\n----\n", "an argument is missing"},
		{"an argument too many", "say a b\n----\na\n", "unknown arguments [b]"},
		{"an unknown option", "say a loud=yes\n----\na\n", "options map[loud:yes]"},
		{"a number that is none", "say a times=x\n----\na\n", "invalid syntax"},
		{"no separator", "say a\n", "the last block has no line ----"},
	} {
		t.Run(test.name, func(t *testing.T) {
			failed, after := play(t, test.text, false)
			if test.want == "" && failed != "" || !strings.Contains(failed, test.want) {
				t.Errorf("it complains %q, want %q in it", failed, test.want)
			}
			if after != test.text {
				t.Errorf("the file was changed:\n%s", after)
			}
		})
	}
	failed, after := play(t, "# a\nsay a\n----\nb\n\n# c\nsay c\n----\n", true)
	if want := "# a\nsay a\n----\na\n\n# c\nsay c\n----\nc\n"; failed != "" || after != want {
		t.Errorf("rewritten it is %q, want %q; %s", after, want, failed)
	}
}
