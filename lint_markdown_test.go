package flotilla_test

import (
	"go/ast"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestMarkdown checks that the files, headings and tests that documents name exist, and that their
// text is wrapped at 100 columns.
func TestMarkdown(t *testing.T) {
	tests := make(map[string]bool)
	base := make(map[string]bool) // file names
	for _, s := range sources(t) {
		base[filepath.Base(s.path)] = true
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test {
				tests[f.Name.Name] = true
			}
		}
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	test := regexp.MustCompile("`((?:Test|Fuzz|Benchmark|Example)[A-Z]\\w*)`")
	file := regexp.MustCompile("`([a-z_]+\\.go)`")
	err := walk(".md", func(path string, content []byte) error {
		for n, line := range longLines(string(content)) {
			t.Errorf("%s:%d is wider than 100 columns: %s", path, n, line)
		}
		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			target, fragment, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") {
				continue // another site
			}
			to := filepath.Join(filepath.Dir(path), filepath.FromSlash(target))
			if target == "" {
				to = path
			}
			text, err := os.ReadFile(to)
			if info, staterr := os.Stat(to); staterr != nil || err != nil && !info.IsDir() {
				t.Errorf("%s links to %s, which does not exist", path, m[1])
			} else if fragment != "" && filepath.Ext(to) == ".md" && !headings(text)[fragment] {
				t.Errorf("%s links to %s, which has no such heading", path, m[1])
			}
		}
		for _, m := range test.FindAllStringSubmatch(string(content), -1) {
			if !tests[m[1]] {
				t.Errorf("%s names %s, and there is no such test", path, m[1])
			}
		}
		for _, m := range file.FindAllStringSubmatch(string(content), -1) {
			if !base[m[1]] {
				t.Errorf("%s names %s, and there is no such file", path, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// longLines yields the lines of a document's text that are too long, by number. Tables, code and
// addresses cannot be wrapped.
func longLines(text string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		code, n := false, 0
		for line := range strings.Lines(text) {
			n++
			start := strings.TrimSpace(line)
			if strings.HasPrefix(start, "```") {
				code = !code
			}
			fixed := code || strings.HasPrefix(start, "|") ||
				strings.HasPrefix(line, "    ") || strings.Contains(line, "://")
			if !fixed && utf8.RuneCountInString(strings.TrimRight(line, "\n")) > 100 && !yield(n, start) {
				return
			}
		}
	}
}

// headings returns the anchors of a document's headings.
func headings(text []byte) map[string]bool {
	anchors := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if title := strings.TrimLeft(line, "#"); title != line {
			anchors[strings.Map(func(r rune) rune {
				switch {
				case r == ' ':
					return '-'
				case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
					return unicode.ToLower(r)
				}
				return -1
			}, strings.TrimSpace(title))] = true
		}
	}
	return anchors
}
