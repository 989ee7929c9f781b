package flotilla_test

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla"
)

// A test that expects an error must check which error it gets. Otherwise it also passes when the
// call fails for another reason, and proves nothing. So if a test fails because an error is nil, or
// because (err == nil) differs from its table, it must also examine that error: with errors.Is or
// As, by its text, by a comparison, or with a function of its own. Where any error will do, a
// comment on the line or on the one before says "any error" and why.
func TestNoErrorIsLikeAnother(t *testing.T) {
	flotilla.SkipShort(t)
	expected := 0
	packages := make(map[string][]*source)
	for _, s := range sources(t) {
		key := s.dir + " " + s.ast.Name.Name
		packages[key] = append(packages[key], s)
	}
	for _, files := range packages {
		if !slices.ContainsFunc(files, func(s *source) bool { return s.test }) {
			continue
		}
		info := types.Info{Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object)}
		var parsed []*ast.File
		for _, s := range files {
			parsed = append(parsed, s.ast)
		}
		ignore := types.Config{Importer: importNothing{}, Error: func(error) {}}
		ignore.Check(files[0].dir, files[0].fset, parsed, &info) // fails, since nothing is imported
		for _, s := range files {
			if !s.test {
				continue
			}
			for _, d := range s.ast.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || f.Body == nil {
					continue
				}
				looked := lookedAt(f.Body, &info)
				ast.Inspect(f.Body, func(n ast.Node) bool {
					branch, ok := n.(*ast.IfStmt)
					if !ok || !fails(branch.Body) {
						return true
					}
					for _, id := range wanted(branch.Cond) {
						expected++
						if obj := info.Uses[id]; !looked[obj] && !s.says("any error", branch) {
							t.Errorf("%s: the test expects an error and does not check which", s.at(branch))
						}
					}
					return true
				})
			}
		}
	}
	if expected < 50 {
		t.Errorf("only %d expected errors were found: this check does not work", expected)
	}
}

// wanted returns the errors that make a condition true by being nil. The comparison with nil is the
// whole condition, an operand of ||, or compared with another bool.
func wanted(cond ast.Expr) (ids []*ast.Ident) {
	switch e := cond.(type) {
	case *ast.ParenExpr:
		return wanted(e.X)
	case *ast.BinaryExpr:
		switch e.Op {
		case token.LOR:
			return append(wanted(e.X), wanted(e.Y)...)
		case token.EQL, token.NEQ:
			for _, operand := range []ast.Expr{e.X, e.Y} {
				p, ok := operand.(*ast.ParenExpr)
				if !ok {
					continue
				}
				if c, ok := p.X.(*ast.BinaryExpr); ok {
					if id := comparedWithNil(c, token.EQL, token.NEQ); id != nil {
						ids = append(ids, id)
					}
				}
			}
			if id := comparedWithNil(e, token.EQL); id != nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// comparedWithNil returns the error variable that e compares with nil; nil if e is something else.
func comparedWithNil(e *ast.BinaryExpr, ops ...token.Token) *ast.Ident {
	id, ok := e.X.(*ast.Ident)
	null, ok2 := e.Y.(*ast.Ident)
	if !ok || !ok2 || null.Name != "nil" || !slices.Contains(ops, e.Op) || !strings.Contains(strings.ToLower(id.Name), "err") {
		return nil
	}
	return id
}

// fails reports whether a block itself makes the test fail.
func fails(block *ast.BlockStmt) bool {
	return slices.ContainsFunc(block.List, func(s ast.Stmt) bool {
		e, ok := s.(*ast.ExprStmt)
		if !ok {
			return false
		}
		call, ok := e.X.(*ast.CallExpr)
		if !ok {
			return false
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		return ok && slices.Contains([]string{"Error", "Errorf", "Fatal", "Fatalf"}, sel.Sel.Name)
	})
}

// lookedAt returns the variables that a function examines. To compare them with nil or to print
// them does not count.
func lookedAt(body *ast.BlockStmt, info *types.Info) map[types.Object]bool {
	looked := make(map[types.Object]bool)
	look := func(e ast.Expr) {
		if id, ok := e.(*ast.Ident); ok && info.Uses[id] != nil {
			looked[info.Uses[id]] = true
		}
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr: // its text, or a field
			look(n.X)
		case *ast.TypeAssertExpr:
			look(n.X)
		case *ast.BinaryExpr:
			for _, pair := range [][2]ast.Expr{{n.X, n.Y}, {n.Y, n.X}} {
				if other, ok := pair[1].(*ast.Ident); (n.Op == token.EQL || n.Op == token.NEQ) && !(ok && other.Name == "nil") {
					look(pair[0])
				}
			}
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
				if slices.Contains([]string{"Error", "Errorf", "Fatal", "Fatalf", "Log", "Logf", "Print", "Printf", "Println", "Sprint", "Sprintf", "Join"}, sel.Sel.Name) {
					return true
				}
			}
			for _, arg := range n.Args {
				look(arg)
			}
		}
		return true
	})
	return looked
}

// says reports whether a comment on the line of n, or on the one before, has the text in it.
func (s *source) says(text string, n ast.Node) bool {
	line := s.fset.Position(n.Pos()).Line
	return slices.ContainsFunc(s.ast.Comments, func(c *ast.CommentGroup) bool {
		end := s.fset.Position(c.End()).Line
		return (end == line || end == line-1) && strings.Contains(c.Text(), text)
	})
}
