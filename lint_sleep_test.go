package flotilla_test

import (
	"errors"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla"
)

// A test may sleep only in a bubble of testing/synctest. There a sleep takes no time, and nothing
// depends on the speed of the machine. A call of time.Sleep is in a bubble if it is
//   - in the arguments of synctest.Test;
//   - in the arguments of a function of the package that calls its parameter only in a bubble;
//   - in a table whose functions are called only in bubbles;
//   - in a function that is used only in such places, or a method whose type is made only there.
func TestNoSleepOutsideBubbles(t *testing.T) {
	flotilla.SkipShort(t)
	excepted := map[string]string{
		"bench": "benchmarks wait for real processes",
	}
	sleeps := 0
	packages := make(map[string][]*source)
	for _, s := range sources(t) {
		key := s.dir + " " + s.ast.Name.Name
		packages[key] = append(packages[key], s)
	}
	for _, files := range packages {
		if excepted[files[0].dir] != "" || !slices.ContainsFunc(files, func(s *source) bool { return s.test }) {
			continue
		}
		b := newBubbles(files)
		for _, s := range files {
			sleep := localName(t, s, "time")
			ast.Inspect(s.ast, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && s.test && isSelector(sel, sleep, "Sleep") {
					sleeps++
					if !b.within(sel.Pos()) {
						t.Errorf("%s: a test sleeps outside a bubble of testing/synctest", s.at(sel))
					}
				}
				return true
			})
		}
	}
	if sleeps == 0 {
		t.Error("no sleep was found: this check does not work")
	}
}

// localName returns the name of an imported package in a file; empty if the file does not import
// it.
func localName(t *testing.T, s *source, path string) string {
	t.Helper()
	for _, spec := range s.ast.Imports {
		if importPath(t, spec) != path {
			continue
		}
		if spec.Name == nil {
			return path[strings.LastIndexByte(path, '/')+1:]
		}
		if spec.Name.Name == "." {
			t.Errorf("%s: %s is imported without a name", s.at(spec), path)
		}
		return spec.Name.Name
	}
	return ""
}

func isSelector(sel *ast.SelectorExpr, pkg, name string) bool {
	x, ok := sel.X.(*ast.Ident)
	return ok && pkg != "" && x.Name == pkg && sel.Sel.Name == name
}

// bubbles knows which code of one package runs in bubbles.
type bubbles struct {
	files  []*source
	info   types.Info
	ranges [][2]token.Pos        // code that is called only in bubbles
	in     map[types.Object]bool // functions and methods that are used only in bubbles
}

// importNothing is an importer for checks that resolve only the names of one package.
type importNothing struct{}

func (importNothing) Import(string) (*types.Package, error) { return nil, errors.New("not imported") }

func newBubbles(files []*source) *bubbles {
	b := &bubbles{
		files: files,
		info:  types.Info{Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object)},
		in:    make(map[types.Object]bool),
	}
	var parsed []*ast.File
	for _, s := range files {
		parsed = append(parsed, s.ast)
	}
	ignore := types.Config{Importer: importNothing{}, Error: func(error) {}}
	ignore.Check(files[0].dir, files[0].fset, parsed, &b.info) // fails, since nothing is imported
	b.findCalled()
	b.findFunctions()
	return b
}

// within reports whether the code at pos runs only in bubbles.
func (b *bubbles) within(pos token.Pos) bool {
	if slices.ContainsFunc(b.ranges, func(r [2]token.Pos) bool { return r[0] <= pos && pos < r[1] }) {
		return true
	}
	f := b.function(pos)
	return f != nil && b.in[b.info.Defs[f.Name]]
}

// function returns the function around pos; nil if there is none.
func (b *bubbles) function(pos token.Pos) *ast.FuncDecl {
	for _, s := range b.files {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Pos() <= pos && pos < f.End() {
				return f
			}
		}
	}
	return nil
}

func (b *bubbles) each(f func(ast.Node) bool) {
	for _, s := range b.files {
		ast.Inspect(s.ast, f)
	}
}

// findCalled finds the arguments and the tables whose functions are called only in bubbles.
func (b *bubbles) findCalled() {
	makers := make(map[types.Object]bool) // functions that call a parameter in a bubble
	for grown := true; grown; {
		b.ranges, grown = nil, false
		b.each(func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				sel, isSel := call.Fun.(*ast.SelectorExpr)
				id, isID := call.Fun.(*ast.Ident)
				if isSel && isSelector(sel, "synctest", "Test") || isID && makers[b.info.Uses[id]] {
					b.ranges = append(b.ranges, [2]token.Pos{call.Lparen, call.Rparen})
				}
			}
			return true
		})
		b.each(func(n ast.Node) bool {
			if f, ok := n.(*ast.FuncDecl); ok && !makers[b.info.Defs[f.Name]] && b.makes(f) {
				makers[b.info.Defs[f.Name]], grown = true, true
			}
			return true
		})
	}
	b.each(func(n ast.Node) bool {
		if table, ok := n.(*ast.CompositeLit); ok && b.calls(table) {
			b.ranges = append(b.ranges, [2]token.Pos{table.Lbrace, table.Rbrace})
		}
		return true
	})
}

// makes reports whether f has a parameter that is a function and uses it only in a bubble.
func (b *bubbles) makes(f *ast.FuncDecl) bool {
	for _, field := range f.Type.Params.List {
		if _, ok := field.Type.(*ast.FuncType); !ok || f.Body == nil {
			continue
		}
		for _, param := range field.Names {
			used, outside := false, false
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok && b.info.Uses[id] == b.info.Defs[param] {
					used, outside = true, outside || !b.within(id.Pos())
				}
				return true
			})
			if used && !outside {
				return true
			}
		}
	}
	return false
}

// calls reports whether a table of structs has functions that the function around it uses only in a
// bubble.
func (b *bubbles) calls(table *ast.CompositeLit) bool {
	array, ok := table.Type.(*ast.ArrayType)
	if !ok {
		return false
	}
	row, ok := array.Elt.(*ast.StructType)
	around := b.function(table.Pos())
	if !ok || around == nil {
		return false
	}
	columns := make(map[string]bool)
	for _, field := range row.Fields.List {
		for _, name := range field.Names {
			if _, ok := field.Type.(*ast.FuncType); ok {
				columns[name.Name] = true
			}
		}
	}
	used, outside := false, false
	ast.Inspect(around, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && columns[sel.Sel.Name] {
			used, outside = true, outside || !b.within(sel.Pos())
		}
		return true
	})
	return used && !outside
}

// findFunctions finds the functions that are used only in bubbles. It begins with all of them and
// removes, until nothing changes, those that are not used at all or also used elsewhere. Methods
// are called through interfaces, so they count as used where their type is made.
func (b *bubbles) findFunctions() {
	uses := make(map[types.Object][]token.Pos)
	methods := make(map[types.Object]types.Object) // their types
	b.each(func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec, *ast.FuncType, *ast.FieldList:
			return false // declares, and makes nothing
		case *ast.FuncDecl:
			obj := b.info.Defs[n.Name]
			b.in[obj] = true
			if n.Recv != nil {
				ast.Inspect(n.Recv.List[0].Type, func(r ast.Node) bool {
					if id, ok := r.(*ast.Ident); ok && methods[obj] == nil {
						methods[obj] = b.info.Uses[id]
					}
					return true
				})
			}
		case *ast.Ident:
			if obj := b.info.Uses[n]; obj != nil {
				uses[obj] = append(uses[obj], n.Pos())
			}
		}
		return true
	})
	for method, typ := range methods {
		uses[method] = uses[typ]
	}
	outside := func(pos token.Pos) bool { return !b.within(pos) }
	for shrunk := true; shrunk; {
		shrunk = false
		for obj := range b.in {
			if len(uses[obj]) == 0 || slices.ContainsFunc(uses[obj], outside) {
				delete(b.in, obj)
				shrunk = true
			}
		}
	}
}
