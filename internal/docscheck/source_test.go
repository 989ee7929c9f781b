package docscheck

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/flotilla-ha/flotilla"
)

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// goFiles parses all Go files at and below dir that are no tests. Modules within are included:
// what they print is quoted in documents too.
func goFiles(t *testing.T, dir string, recursive bool) []*ast.File {
	t.Helper()
	var all []*ast.File
	fset := token.NewFileSet()
	top := filepath.Join(root, filepath.FromSlash(dir))
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != top && (!recursive || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		all = append(all, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// structFields returns the exported fields of the struct type that the root package has under a
// name. The type may be an alias of one in another package of the module.
func structFields(t *testing.T, files []*ast.File, name string) []string {
	t.Helper()
	for _, f := range files {
		for _, d := range f.Decls {
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != token.TYPE {
				continue
			}
			for _, spec := range group.Specs {
				spec := spec.(*ast.TypeSpec)
				if spec.Name.Name != name {
					continue
				}
				switch typ := spec.Type.(type) {
				case *ast.StructType:
					return exported(typ)
				case *ast.SelectorExpr:
					return structFields(t, imported(t, f, typ.X.(*ast.Ident).Name), typ.Sel.Name)
				case *ast.Ident:
					return structFields(t, files, typ.Name)
				}
			}
		}
	}
	t.Fatalf("there is no struct type %s", name)
	return nil
}

// exported returns the names of the exported fields.
func exported(typ *ast.StructType) (names []string) {
	for _, field := range typ.Fields.List {
		for _, id := range field.Names {
			if id.IsExported() {
				names = append(names, id.Name)
			}
		}
	}
	return names
}

// imported parses the package of this module that f imports under a name.
func imported(t *testing.T, f *ast.File, name string) []*ast.File {
	t.Helper()
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		dir, ours := strings.CutPrefix(path, module+"/")
		if ours && (spec.Name != nil && spec.Name.Name == name || spec.Name == nil && filepath.Base(dir) == name) {
			return goFiles(t, dir, false)
		}
	}
	t.Fatalf("no package of this module is imported as %s", name)
	return nil
}

// literals returns all string literals of the files, those that + joins as one.
func literals(files []*ast.File) []string {
	var all []string
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, ok := constant(e)
			if ok {
				all = append(all, text)
			}
			return !ok
		})
	}
	return all
}

// constant returns the text of a string literal, or of literals that + joins.
func constant(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, err := strconv.Unquote(e.Value)
			return text, err == nil
		}
	case *ast.ParenExpr:
		return constant(e.X)
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return "", false
		}
		x, okX := constant(e.X)
		y, okY := constant(e.Y)
		if okX && okY {
			return x + y, true
		}
	}
	return "", false
}

// quoted reports whether the code says text: each part of it between "…" is in one of its literals.
func quoted(all []string, text string) bool {
	for part := range strings.SplitSeq(text, "…") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if !slices.ContainsFunc(all, func(l string) bool { return strings.Contains(l, part) }) {
			return false
		}
	}
	return true
}

func TestQuoted(t *testing.T) {
	all := []string{"the disk hangs: check it", "no room in "}
	for text, want := range map[string]bool{
		"the disk hangs":       true,
		"no room in …":         true,
		"… hangs: check … in ": true,
		"the disk sings":       false,
		"no room in … today":   false,
	} {
		if got := quoted(all, text); got != want {
			t.Errorf("quoted(%q) = %v, want %v", text, got, want)
		}
	}
}
