package flotilla_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

const (
	maxFileLines   = 600
	maxRootSurface = 54 // exported names of the root package, methods apart
)

func TestFileLength(t *testing.T) {
	for _, s := range sources(t) {
		if s.lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d: give each noun its own file", s.path, s.lines, maxFileLines)
		}
	}
}

// Imports stand in three groups: the standard library, other modules, this one.
func TestImportGroups(t *testing.T) {
	for _, s := range sources(t) {
		last, line := 0, 0
		for _, spec := range s.ast.Imports {
			path := importPath(t, spec)
			group := 1
			if within(path, modulePath) {
				group = 2
			} else if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
				group = 0
			}
			at := s.fset.Position(spec.Pos()).Line
			if group < last || group > last && at == line+1 {
				t.Errorf("%s: %s belongs into another group of imports", s.at(spec), path)
			}
			last, line = group, at
		}
	}
}

func TestNoInit(t *testing.T) {
	allowed := map[string]string{
		"vip/init_linux.go":                     "a guard process runs the program's own binary, and must start before its main",
		"internal/guard/reporter/init_linux.go": "the same, for guards that only report the death of the program",
	}
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				if allowed[s.path] == "" {
					t.Errorf("%s: an import must have no effects", s.at(f))
				}
				delete(allowed, s.path)
			}
		}
	}
	for path := range allowed {
		t.Errorf("%s has no init any more: remove it from the list", path)
	}
}

func TestNoMutableGlobals(t *testing.T) {
	allowed := map[string]string{ // file and name: why it must be one
		"vip/system_linux.go machine":    "all calls of Run in a process share one nftables set",
		"internal/guard/share.go common": "nodes and addresses in a process share one guard process: it must not report a death before all addresses are gone",
		"examples/chat/chat.go page":     "go:embed fills a variable of the package",
		"internal/page/render.go files":  "go:embed fills a variable of the package",
	}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, d := range s.ast.Decls {
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != token.VAR {
				continue
			}
			for _, spec := range group.Specs {
				spec := spec.(*ast.ValueSpec)
				for i, name := range spec.Names {
					key := s.path + " " + name.Name
					if name.Name == "_" || i < len(spec.Values) && isSentinel(name.Name, spec.Values[i]) {
						continue
					}
					if _, ok := allowed[key]; !ok {
						t.Errorf("%s: %s is a package variable; make it a constant, a function or a field, or list it here with the reason", s.at(name), name.Name)
					}
					delete(allowed, key)
				}
			}
		}
	}
	for key := range allowed {
		t.Errorf("%s is not there any more: remove it from the list", key)
	}
}

// isSentinel reports whether a variable is an error for comparisons, or names that of another
// package.
func isSentinel(name string, value ast.Expr) bool {
	if sel, ok := value.(*ast.SelectorExpr); ok {
		return sel.Sel.Name == name && strings.HasPrefix(name, "Err")
	}
	call, ok := value.(*ast.CallExpr)
	if !ok || !strings.HasPrefix(name, "err") && !strings.HasPrefix(name, "Err") {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && (pkg.Name == "errors" && sel.Sel.Name == "New" || pkg.Name == "fmt" && sel.Sel.Name == "Errorf")
}

func TestRootSurface(t *testing.T) {
	var names []string
	for _, s := range sources(t) {
		if s.dir != "." || s.test {
			continue
		}
		for _, d := range s.ast.Decls {
			names = append(names, exportedNames(d)...)
		}
	}
	slices.Sort(names)
	t.Logf("%d exported names: %s", len(names), strings.Join(names, " "))
	if len(names) > maxRootSurface {
		t.Errorf("the root package exports %d names, more than %d", len(names), maxRootSurface)
	}
}

// exportedNames returns the exported package-level names that d declares, methods apart.
func exportedNames(d ast.Decl) (names []string) {
	add := func(name string) {
		if ast.IsExported(name) {
			names = append(names, name)
		}
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			add(d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				add(spec.Name.Name)
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					add(name.Name)
				}
			}
		}
	}
	return names
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for dir, files := range byDir(sources(t)) {
		files = slices.DeleteFunc(files, func(s *source) bool { return s.test })
		if len(files) == 0 {
			continue
		}
		if n := len(slices.DeleteFunc(slices.Clone(files), func(s *source) bool { return s.ast.Doc == nil })); n != 1 {
			t.Errorf("package %s has %d package comments, want 1", dir, n)
		}
		for _, s := range files {
			for _, d := range s.ast.Decls {
				for _, fault := range s.undocumented(d) {
					t.Errorf("%s: %s", s.at(fault.node), fault.text)
				}
			}
		}
	}
}

// fault is one violation at one place.
type fault struct {
	node ast.Node
	text string
}

// undocumented returns the exported parts of d that have no proper comment: names, methods of
// exported types, fields of exported structs.
func (s *source) undocumented(d ast.Decl) (faults []fault) {
	want := func(node ast.Node, name string, doc *ast.CommentGroup) {
		text := strings.TrimRight(doc.Text(), "\n")
		last := text[strings.LastIndexByte(text, '\n')+1:]
		switch {
		case text == "":
			faults = append(faults, fault{node, name + " has no comment"})
		case !strings.HasPrefix(text, name+" "):
			faults = append(faults, fault{node, "the comment of " + name + " does not begin with the name"})
		case !strings.HasPrefix(last, "\t") && !strings.HasSuffix(last, ".") && !strings.HasSuffix(last, ".)"):
			faults = append(faults, fault{node, "the comment of " + name + " does not end with a full stop"})
		}
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d))) {
			want(d, d.Name.Name, d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if !spec.Name.IsExported() {
					continue
				}
				if len(d.Specs) == 1 && spec.Doc == nil {
					want(spec, spec.Name.Name, d.Doc)
				} else {
					want(spec, spec.Name.Name, spec.Doc)
				}
				if st, ok := spec.Type.(*ast.StructType); ok {
					for _, f := range s.bareFields(st) {
						faults = append(faults, fault{f, fmt.Sprintf("field %s of %s has no comment", f.Names[0].Name, spec.Name.Name)})
					}
				}
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					if name.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
						faults = append(faults, fault{name, name.Name + " has no comment"})
					}
				}
			}
		}
	}
	return faults
}

// receiver returns the name of the type that d is a method of.
func receiver(d *ast.FuncDecl) string {
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if name, ok := typ.(*ast.Ident); ok {
		return name.Name
	}
	return ""
}

// bareFields returns the exported fields that have no comment and do not share that of the line
// above.
func (s *source) bareFields(st *ast.StructType) (bare []*ast.Field) {
	shared := -1 // the last line of a field that has a comment or shares one
	for _, f := range st.Fields.List {
		line := s.fset.Position(f.Pos()).Line
		if len(f.Names) == 0 || !f.Names[0].IsExported() {
			continue
		}
		if f.Doc == nil && f.Comment == nil && line != shared+1 {
			bare = append(bare, f)
			continue
		}
		shared = s.fset.Position(f.End()).Line
	}
	return bare
}
