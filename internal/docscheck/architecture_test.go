package docscheck

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// arrows returns the arrows of the mermaid diagram in a document, as pairs of directories. A node
// shows its directory: id["dir"]. The root package is called flotilla.
func arrows(text string) (pairs [][2]string) {
	_, diagram, _ := strings.Cut(text, "```mermaid\n")
	diagram, _, _ = strings.Cut(diagram, "```")
	dirs := make(map[string]string)
	shown := regexp.MustCompile(`(\w+)\["([^"]+)"\]`)
	for _, m := range shown.FindAllStringSubmatch(diagram, -1) {
		dirs[m[1]] = m[2]
		if m[2] == "flotilla" {
			dirs[m[1]] = "."
		}
	}
	for line := range strings.Lines(shown.ReplaceAllString(diagram, "$1")) {
		from, to, ok := strings.Cut(line, "-->")
		if !ok {
			continue
		}
		for id := range strings.SplitSeq(to, "&") {
			pairs = append(pairs, [2]string{dirs[strings.TrimSpace(from)], dirs[strings.TrimSpace(id)]})
		}
	}
	return pairs
}

func TestArrows(t *testing.T) {
	got := arrows("text\n```mermaid\nflowchart TD\n  a[\"x/a\"] --> root & b[\"b\"]\n  root[\"flotilla\"] --> a\n```\n")
	want := [][2]string{{"x/a", "."}, {"x/a", "b"}, {".", "x/a"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// prose returns a document without its blocks of code.
func prose(text string) string {
	var b strings.Builder
	for i, block := range strings.Split(text, "```") {
		if i%2 == 0 {
			b.WriteString(block)
		}
	}
	return b.String()
}

// TestArchitectureDiagram checks that each arrow of ARCHITECTURE.md is an import.
func TestArchitectureDiagram(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	pairs := arrows(read(t, "ARCHITECTURE.md"))
	if len(pairs) < 20 {
		t.Fatalf("only %d arrows are found", len(pairs))
	}
	for _, p := range pairs {
		imports := slices.ContainsFunc(goFiles(t, p[0], false), func(f *ast.File) bool {
			return slices.ContainsFunc(f.Imports, func(spec *ast.ImportSpec) bool {
				return spec.Path.Value == strconv.Quote(path.Join(module, p[1]))
			})
		})
		if !imports {
			t.Errorf("ARCHITECTURE.md: an arrow goes from %s to %s, and there is no such import", p[0], p[1])
		}
	}
}

// TestArchitecturePackages checks that ARCHITECTURE.md names every package of internal, but for
// those below another one.
func TestArchitecturePackages(t *testing.T) {
	named := spans(prose(read(t, "ARCHITECTURE.md")))
	dirs, err := os.ReadDir(filepath.Join(root, "internal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if dir := "internal/" + d.Name(); d.IsDir() && !slices.Contains(named, dir) {
			t.Errorf("ARCHITECTURE.md does not name %s", dir)
		}
	}
}

// TestArchitectureNames checks that what ARCHITECTURE.md names with a dot exists: a name of a
// package, such as state.State, or a method or field of a type, such as State.Apply.
func TestArchitectureNames(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	exists := declared(goFiles(t, ".", true))
	name := regexp.MustCompile(`^\w+\.\w+$`)
	n := 0
	for _, s := range spans(prose(read(t, "ARCHITECTURE.md"))) {
		if !name.MatchString(s) || strings.HasSuffix(s, ".go") {
			continue
		}
		n++
		if !exists[s] {
			t.Errorf("ARCHITECTURE.md names %s, and there is no such thing", s)
		}
	}
	if n < 50 {
		t.Errorf("only %d names are found", n)
	}
}

// declared returns the names that files declare: package.Name, Type.Method and Type.Field.
func declared(files []*ast.File) map[string]bool {
	names := make(map[string]bool)
	for _, f := range files {
		pkg := f.Name.Name
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					names[pkg+"."+d.Name.Name] = true
				} else {
					names[receiver(d.Recv.List[0].Type)+"."+d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.ValueSpec:
						for _, id := range spec.Names {
							names[pkg+"."+id.Name] = true
						}
					case *ast.TypeSpec:
						names[pkg+"."+spec.Name.Name] = true
						for _, id := range members(spec.Type) {
							names[spec.Name.Name+"."+id.Name] = true
						}
					}
				}
			}
		}
	}
	return names
}

// members returns the fields of a struct type and the methods of an interface type.
func members(typ ast.Expr) (ids []*ast.Ident) {
	var list *ast.FieldList
	switch typ := typ.(type) {
	case *ast.StructType:
		list = typ.Fields
	case *ast.InterfaceType:
		list = typ.Methods
	default:
		return nil
	}
	for _, field := range list.List {
		ids = append(ids, field.Names...)
	}
	return ids
}

// receiver returns the name of the type of a receiver.
func receiver(typ ast.Expr) string {
	switch typ := typ.(type) {
	case *ast.StarExpr:
		return receiver(typ.X)
	case *ast.IndexExpr:
		return receiver(typ.X)
	case *ast.IndexListExpr:
		return receiver(typ.X)
	case *ast.Ident:
		return typ.Name
	}
	return ""
}
