package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Rows follow lines into other files, functions and packages. A row that cannot is printed with the
// line that is most like its own.
func TestRelocate(t *testing.T) {
	for _, test := range []struct {
		name    string
		files   map[string]string
		row     string // as the table has it
		want    string // as the table has it afterwards
		message string // part of what is printed
		err     string
	}{
		{
			name:  "nothing has moved",
			files: map[string]string{"a.go": "func f() {\n\tguard()\n}\n", "a_test.go": "func TestF() {}\n"},
			row:   `m("why", "TestF", "a.go", "f", "guard()", "")`,
		},
		{
			name: "to another file of the package",
			files: map[string]string{
				"b.go":      "func f() {\n\tguard()\n}\n\nfunc g() {\n\tguard()\n}\n",
				"a_test.go": "func TestF() {}\n",
			},
			row:     `m("why", "TestF", "a.go", "f", "guard()", "")`,
			want:    `m("why", "TestF", "b.go", "f", "guard()", "")`,
			message: "table.go:4: a.go f -> b.go f, tested in ./.",
		},
		{
			name:  "to another function",
			files: map[string]string{"a.go": "func (x X) other() {\n\tguard()\n}\n", "a_test.go": "func TestF() {}\n"},
			row:   "m(`why`, `TestF`, `a.go`, `f`, `guard()`, ``)",
			want:  "m(`why`, `TestF`, `a.go`, \"other\", `guard()`, ``)",
		},
		{
			name: "to another package, without the test",
			files: map[string]string{
				"internal/p/b.go": "func (x X) f() {\n\tguard()\n}\n",
				"a_test.go":       "func TestF() {}\n",
			},
			row:  `m("why", "TestF/sub", "a.go", "f", "guard()", "")`,
			want: `m("why", "TestF/sub", "internal/p/b.go", "f", "guard()", "").of(".")`,
		},
		{
			name: "to another package, with the test",
			files: map[string]string{
				"internal/p/b.go":      "func (x X) f() {\n\tguard()\n}\n",
				"internal/p/b_test.go": "func TestF() {}\n",
			},
			row:  `m("why", "TestF", "a.go", "f", "guard()", "")`,
			want: `m("why", "TestF", "internal/p/b.go", "f", "guard()", "")`,
		},
		{
			name: "to the package of the test",
			files: map[string]string{
				"vip/b.go":      "func (x X) f() {\n\tguard()\n}\n",
				"vip/b_test.go": "func TestF() {}\n",
			},
			row:  `m("why", "TestF", "a.go", "f", "guard()", "").of("./vip")`,
			want: `m("why", "TestF", "vip/b.go", "f", "guard()", "")`,
		},
		{
			name: "the test alone has moved",
			files: map[string]string{
				"a.go":          "func f() {\n\tguard()\n}\n",
				"vip/b_test.go": "func TestF() {}\n",
			},
			row:  `m("why", "TestF", "a.go", "f", "guard()", "")`,
			want: `m("why", "TestF", "a.go", "f", "guard()", "").of("./vip")`,
		},
		{
			name: "to two places",
			files: map[string]string{
				"b.go":      "func f() {\n\tguard()\n}\n",
				"c.go":      "func f() {\n\tguard()\n}\n",
				"a_test.go": "func TestF() {}\n",
			},
			row:     `m("why", "TestF", "a.go", "f", "guard()", "")`,
			message: "the line is in several places: b.go f; c.go f",
			err:     "1 rows need your help",
		},
		{
			name: "nowhere",
			files: map[string]string{
				"b.go":        "func f() {\n\tguardian(1)\n}\n\nfunc g() {\n\tif n.guard(1) {\n\t}\n}\n",
				"c_test.go":   "func TestF() {\n\tif guard(1) {\n\t}\n}\n",
				"m/go.mod":    "module m\n",
				"m/a.go":      "func f() {\n\tif guard(1) {\n\t}\n}\n",
				"testdata.go": "func h() {\n\tsomething()\n}\n",
			},
			row:     `m("why", "TestF", "a.go", "f", "if guard(1) {", "if false {")`,
			message: "the line is nowhere\n\tnearest: b.go:6 g\n\t\tif n.guard(1) {",
			err:     "1 rows need your help",
		},
		{
			name:    "without its test",
			files:   map[string]string{"b.go": "func f() {\n\tguard()\n}\n"},
			row:     `m("why", "TestF", "a.go", "f", "guard()", "")`,
			message: "no package has the test TestF",
			err:     "1 rows need your help",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			table := func(row string) string { return "package main\n\nvar rows = []row{\n\t" + row + ",\n}\n" }
			write(t, dir, "tables/table.go", table(test.row))
			for name, text := range test.files {
				write(t, dir, name, text)
			}
			var out strings.Builder
			err := relocate(dir, filepath.Join(dir, "tables"), &out)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("the error is %v, want %q", err, test.err)
			}
			if !strings.Contains(out.String(), test.message) {
				t.Errorf("it prints %q, want %q", out.String(), test.message)
			}
			want := test.want
			if want == "" {
				want = test.row
			}
			got, err := os.ReadFile(filepath.Join(dir, "tables", "table.go"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(table(want), string(got)); diff != "" {
				t.Errorf("the table (-want +got):\n%s", diff)
			}
		})
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	name = filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Every row of the tables is read from their source as it is.
func TestEntries(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[row]int)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := entriesOf(path, string(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			got[e.row]++
		}
	}
	want := make(map[row]int)
	for _, r := range table() {
		want[r]++
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("the rows (-want +got):\n%s", diff)
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b  string
		limit int
		want  int
	}{
		{"", "", 5, 0},
		{"kitten", "sitting", 5, 3},
		{"if guard(1) {", "if n.guard(1) {", 5, 2},
		{"abc", "", 5, 3},
	} {
		if got := distance(test.a, test.b, test.limit); got != test.want {
			t.Errorf("distance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
	if got := distance("abcdef", "uvwxyz", 2); got <= 2 {
		t.Errorf("distance stops with %d, want more than the limit", got)
	}
}
