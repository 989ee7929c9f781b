package flotilla_test

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/gotypes"
)

var lower = flag.Bool("lower", false, "TestStructure lowers the numbers in lint_known_test.go to the measured ones")

// limit bounds one measure of every package, or of every type.
type limit struct {
	max    int
	root   int // for the root package
	remedy string
}

// limits is the table of structure limits, by the name of the measure.
func limits() map[string]limit {
	return map[string]limit{
		"group":    {8, 12, "files of the largest group that all reach each other; separate them"},
		"mutual":   {6, 10, "pairs of files that use each other; let one of them not know the other"},
		"files":    {1 << 20, 32, "production files; move some into a package of their own"},
		"lines":    {1 << 20, 6000, "production lines (rounded up to hundreds); move some into a package of their own"},
		"methods":  {60, 60, "methods; give the type one job"},
		"fields":   {25, 25, "fields; give the type one job"},
		"nodes":    {0, 0, "struct fields that hold a *Node; pass what the component needs to its constructor"},
		"comments": {0, 0, "comment lines over 100 columns; wrap them"},
	}
}

// maxCommentColumns is the width of comments in characters. A tab counts as one.
const maxCommentColumns = 100

// TestStructure compares the measures of all packages with their limits. A package that is over a
// limit is in the table of lint_known_test.go with its present number. That number may only go
// down: when the package gets better, lower the number, or remove the entry when the limit is kept.
func TestStructure(t *testing.T) {
	flotilla.SkipShort(t)
	if runtime.GOOS != "linux" {
		t.Skip("the numbers are those of the files for Linux")
	}
	measured := measure(t)
	known := known() // package, or type, to the number that must not grow
	if *lower {
		for key, n := range known {
			known[key] = min(n, measured[key])
			if !over(key, measured[key]) {
				delete(known, key)
			}
		}
		writeKnown(t, known)
	}
	for _, key := range slices.Sorted(maps.Keys(measured)) {
		n, old := measured[key], known[key]
		name, subject, _ := strings.Cut(key, " ")
		switch {
		case !over(key, n) && old == 0, n == old:
		case old == 0:
			t.Errorf("%s has %d %s (limit %d)", subject, n, limits()[name].remedy, bound(key))
		case n > old:
			t.Errorf("%s has %d %s (limit %d, until now %d)", subject, n, limits()[name].remedy, bound(key), old)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(known)) {
		if n := measured[key]; n < known[key] || !over(key, n) {
			t.Errorf("%s is %d in lint_known_test.go and now %d; run: go test -run TestStructure . -lower", key, known[key], n)
		}
	}
}

// bound returns the limit of a measure, whose key is its name and what was measured.
func bound(key string) int {
	name, subject, _ := strings.Cut(key, " ")
	if subject == "." {
		return limits()[name].root
	}
	return limits()[name].max
}

func over(key string, n int) bool { return n > bound(key) }

// writeKnown replaces the table in lint_known_test.go.
func writeKnown(t *testing.T, known map[string]int) {
	t.Helper()
	const path, begin = "lint_known_test.go", "\treturn map[string]int{\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(string(text), begin)
	if !ok {
		t.Fatalf("%s has no table", path)
	}
	out := head + begin
	for _, key := range slices.Sorted(maps.Keys(known)) {
		out += fmt.Sprintf("\t\t%q: %d,\n", key, known[key])
	}
	formatted, err := format.Source([]byte(out + "\t}\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, formatted, 0o666); err != nil {
		t.Fatal(err)
	}
}

// measure returns all measures by their keys.
func measure(t *testing.T) map[string]int {
	t.Helper()
	m := make(map[string]int)
	pkgs, err := gotypes.Load(".", "./...")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pkgs {
		dir := strings.TrimPrefix(strings.TrimPrefix(p.Path, modulePath), "/")
		dir = cmp.Or(dir, ".")
		structure(m, dir, p)
		// Users of the library hold nodes; the library's own components must not.
		if dir != "clustertest" && !within(dir, "internal/netlab") {
			m["nodes "+dir] = nodeFields(p)
		}
	}
	if m["files ."] < 3 || m["methods .Node"] == 0 {
		t.Error("the root package has no files or no Node: this check does not work")
	}
	for _, s := range sources(t) {
		m["comments "+s.dir] += longComments(s)
	}
	return m
}

// structure measures one package: its files, how they use each other, and its types. A file uses
// another if it names something that the other declares: a package-level name, method or field.
func structure(m map[string]int, dir string, p *gotypes.Package) {
	file := func(pos token.Pos) string { return filepath.Base(p.Fset.Position(pos).Filename) }
	uses := make(map[string]map[string]bool)
	for _, f := range p.Files {
		m["files "+dir]++
		m["lines "+dir] += p.Fset.File(f.Pos()).LineCount()
		uses[file(f.Pos())] = make(map[string]bool)
	}
	for id, o := range p.Info.Uses {
		if o.Pkg() != p.Types || !o.Pos().IsValid() {
			continue
		}
		if v, ok := o.(*types.Var); ok && !v.IsField() && o.Parent() != p.Types.Scope() {
			continue // a local variable
		}
		if from, to := file(id.Pos()), file(o.Pos()); from != to {
			uses[from][to] = true
		}
	}
	m["lines "+dir] = (m["lines "+dir] + 99) / 100 * 100 // so that not every change changes the table
	for a := range uses {
		for b := range uses[a] {
			if a < b && uses[b][a] {
				m["mutual "+dir]++
			}
		}
	}
	m["group "+dir] = largestGroup(uses)
	for _, name := range p.Types.Scope().Names() {
		o, ok := p.Types.Scope().Lookup(name).(*types.TypeName)
		if !ok || o.IsAlias() {
			continue
		}
		key := dir + "." + name
		if dir == "." {
			key = "." + name
		}
		if t, ok := o.Type().(*types.Named); ok {
			m["methods "+key] = t.NumMethods()
		}
		// Configuration may have many fields.
		if st, ok := o.Type().Underlying().(*types.Struct); ok && !strings.HasSuffix(name, "Config") {
			m["fields "+key] = st.NumFields()
		}
	}
}

// largestGroup returns the size of the largest set of files that all reach each other by arrows.
func largestGroup(arrows map[string]map[string]bool) int {
	reach := make(map[string]map[string]bool)
	var visit func(from, at string)
	visit = func(from, at string) {
		for to := range arrows[at] {
			if !reach[from][to] {
				reach[from][to] = true
				visit(from, to)
			}
		}
	}
	for f := range arrows {
		reach[f] = make(map[string]bool)
		visit(f, f)
	}
	largest := 0
	for a := range arrows {
		size := 1
		for b := range reach[a] {
			if b != a && reach[b][a] {
				size++
			}
		}
		largest = max(largest, size)
	}
	return largest
}

// nodeFields counts the struct fields of a package that hold a *flotilla.Node, also in a slice, an
// array, a map or a channel.
func nodeFields(p *gotypes.Package) (n int) {
	var holds func(types.Type) bool
	holds = func(t types.Type) bool {
		switch t := types.Unalias(t).(type) {
		case *types.Pointer:
			return holds(t.Elem())
		case *types.Slice:
			return holds(t.Elem())
		case *types.Array:
			return holds(t.Elem())
		case *types.Chan:
			return holds(t.Elem())
		case *types.Map:
			return holds(t.Key()) || holds(t.Elem())
		case *types.Named:
			o := t.Obj()
			return o.Name() == "Node" && o.Pkg() != nil && o.Pkg().Path() == modulePath
		}
		return false
	}
	for _, f := range p.Files {
		ast.Inspect(f, func(node ast.Node) bool {
			if st, ok := node.(*ast.StructType); ok {
				for _, field := range st.Fields.List {
					if holds(p.Info.TypeOf(field.Type)) {
						n += max(1, len(field.Names))
					}
				}
			}
			return true
		})
	}
	return n
}

// longComments counts the comment lines of a file that end beyond the last column. Directives, the
// expected output of examples, and lines with a URL cannot be wrapped.
func longComments(s *source) (n int) {
	for _, group := range s.ast.Comments {
		if text := group.Text(); strings.HasPrefix(text, "Output:") || strings.HasPrefix(text, "Unordered output:") {
			continue
		}
		for _, c := range group.List {
			column := s.fset.Position(c.Pos()).Column - 1
			for line := range strings.Lines(c.Text) {
				line = strings.TrimRight(line, "\r\n")
				directive := strings.HasPrefix(line, "//go:") || strings.HasPrefix(line, "//nolint") || strings.HasPrefix(line, "//lint:")
				if column+utf8.RuneCountInString(line) > maxCommentColumns && !directive && !strings.Contains(line, "://") {
					n++
				}
				column = 0
			}
		}
	}
	return n
}

func TestLargestGroup(t *testing.T) {
	for _, tt := range []struct {
		name   string
		arrows string // "ab" for an arrow from a to b
		want   int
	}{
		{"no file", "", 0},
		{"one way", "ab bc ac", 1},
		{"two that use each other", "ab ba bc", 2},
		{"a circle beside a pair", "ab bc ca cd de ed", 3},
		{"two circles with a common file", "ab ba bc cb", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := make(map[string]map[string]bool)
			for _, arrow := range strings.Fields(tt.arrows) {
				for _, file := range strings.Split(arrow, "") {
					if g[file] == nil {
						g[file] = make(map[string]bool)
					}
				}
				g[arrow[:1]][arrow[1:]] = true
			}
			if n := largestGroup(g); n != tt.want {
				t.Errorf("%d, want %d", n, tt.want)
			}
		})
	}
}

func TestLongComments(t *testing.T) {
	full := strings.Repeat("x", maxCommentColumns-3)
	for _, tt := range []struct {
		name, code string
		want       int
	}{
		{"a full line", "// " + full, 0},
		{"one character more", "// x" + full, 1},
		{"characters, not bytes", "// ä" + full[1:], 0},
		{"behind code", "var a int // " + full[:90], 1},
		{"long code", "var a = \"x" + full + "\" // x", 1},
		{"long code alone", "var a = \"x" + full + "\"", 0},
		{"a directive", "//go:generate x" + full, 0},
		{"a URL", "// https://x" + full, 0},
		{"several lines", "/* x" + full + "\n" + full + "\nxxxx" + full + " */", 2},
		{"output", "func f() {\n// Output:\n// x" + full + "\n}", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, "p.go", "package p\n\n"+tt.code+"\n", parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if n := longComments(&source{ast: f, fset: fset}); n != tt.want {
				t.Errorf("%d, want %d", n, tt.want)
			}
		})
	}
}
