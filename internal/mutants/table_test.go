package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/gotypes"
)

const root = "../.."

// Every row applies to the present source, and names a test that exists.
func TestTable(t *testing.T) {
	all, err := load(root, table())
	if err != nil {
		t.Error(err)
	}
	if len(all) < 60 {
		t.Errorf("only %d mutants", len(all))
	}
	tests := make(map[string]map[string]bool) // by package
	seen := make(map[row]bool)
	for _, m := range all {
		pkg := m.where()
		if tests[pkg] == nil {
			tests[pkg] = testsOf(t, pkg)
		}
		if top, _, _ := strings.Cut(m.test, "/"); !tests[pkg][top] {
			t.Errorf("%s: %s has no test %s", m.name(), pkg, top)
		}
		key := row{file: m.file, in: m.in, line: m.line, mutant: m.mutant}
		if seen[key] {
			t.Errorf("%s is in the table twice", m.name())
		}
		seen[key] = true
	}
}

// Every row compiles, those that a sample leaves out too.
func TestRowsCompile(t *testing.T) {
	all, err := load(root, table())
	if err != nil {
		t.Skip("TestTable reports what is wrong with the table")
	}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	files, pkgs, err := graftAll(top, all)
	if err == nil {
		_, err = gotypes.LoadOverlay(top, files, pkgs...)
	}
	if err != nil {
		t.Error(err)
	}
}

// testsOf returns the tests of a package.
func testsOf(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	fset := token.NewFileSet()
	for _, path := range paths {
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

// The table in the document is up to date.
func TestDocument(t *testing.T) {
	all, err := load(root, table())
	if err != nil {
		t.Skip("TestTable reports what is wrong with the table")
	}
	b, err := os.ReadFile(filepath.Join(root, "TESTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := document(string(b), all)
	if err != nil {
		t.Fatal(err)
	}
	if want != string(b) {
		t.Error("the table in TESTING.md is stale: go run ./internal/mutants -markdown")
	}
}

// A row that does not apply, or that applies twice, is an error that names the row.
func TestFind(t *testing.T) {
	const source = `package p

func f() {
	if a {
	}
}

func (t T) g() {
	if a {
	}
	if b {
	}
	if b {
	}
}
`
	valid := row{file: "p.go", in: "f", line: "if a {", mutant: "if false {", test: "TestX", guard: "why"}
	for _, test := range []struct {
		name, want string
		change     func(*row)
	}{
		{"as it is", "", func(*row) {}},
		{"of a method", "", func(r *row) { r.in = "g" }},
		{"twice in the file", "the line is there twice, as 4 and 9", func(r *row) { r.in = "" }},
		{"twice in the function", "the line is there twice, as 11 and 13", func(r *row) { r.in, r.line = "g", "if b {" }},
		{"gone", "there is no such line any more", func(r *row) { r.line = "if c {" }},
		{"of a function that is gone", "there is no function h", func(r *row) { r.in = "h" }},
		{"without a change", "the row changes nothing", func(r *row) { r.mutant = r.line }},
		{"without a test", "the row changes nothing, or names no test", func(r *row) { r.test = "" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := valid
			test.change(&r)
			_, err := r.find(source)
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("the error is %v, want %q", err, test.want)
			}
		})
	}
}
