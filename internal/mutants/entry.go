package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
)

// entry is a row where a table has it in its source.
type entry struct {
	row
	number   int // of the line that it begins in
	fileText span
	inText   span
	end      int  // of the call of m
	ofText   span // the call of of, with its dot; empty: there is none
}

// span is a part of a file's text.
type span struct{ from, to int }

// entriesOf returns the rows in the source of a table: the calls of m, with what is called on them.
func entriesOf(path, text string) ([]entry, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var all []entry
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		e, ok := entryOf(fset, call)
		if ok {
			all = append(all, e)
		}
		return !ok
	})
	return all, nil
}

func entryOf(fset *token.FileSet, call *ast.CallExpr) (entry, bool) {
	at := func(p token.Pos) int { return fset.Position(p).Offset }
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr: // of, called on a row
		inner, ok := f.X.(*ast.CallExpr)
		if !ok {
			return entry{}, false
		}
		e, ok := entryOf(fset, inner)
		if ok && f.Sel.Name == "of" && len(call.Args) == 1 {
			e.pkg = literal(call.Args[0])
			e.ofText = span{at(inner.End()), at(call.End())}
		}
		return e, ok
	case *ast.Ident:
		if f.Name != "m" || len(call.Args) != 6 {
			return entry{}, false
		}
		var texts [6]string
		for i, a := range call.Args {
			if _, ok := a.(*ast.BasicLit); !ok {
				return entry{}, false // no row of a table: it is made of something else
			}
			texts[i] = literal(a)
		}
		return entry{
			row:      m(texts[0], texts[1], texts[2], texts[3], texts[4], texts[5]),
			number:   fset.Position(call.Pos()).Line,
			fileText: span{at(call.Args[2].Pos()), at(call.Args[2].End())},
			inText:   span{at(call.Args[3].Pos()), at(call.Args[3].End())},
			end:      at(call.End()),
		}, true
	}
	return entry{}, false
}

// literal returns the value of a string literal; empty: the expression is none.
func literal(e ast.Expr) string {
	b, ok := e.(*ast.BasicLit)
	if !ok || b.Kind != token.STRING {
		return ""
	}
	text, err := strconv.Unquote(b.Value)
	if err != nil {
		return ""
	}
	return text
}

// rewrite returns the edits that give the entry the place and the package of another row.
func (e entry) rewrite(to row) []edit {
	var edits []edit
	if to.file != e.file {
		edits = append(edits, edit{e.fileText.from, e.fileText.to, strconv.Quote(to.file)})
	}
	if to.in != e.in {
		edits = append(edits, edit{e.inText.from, e.inText.to, strconv.Quote(to.in)})
	}
	of := ""
	if to.pkg != "" {
		of = ".of(" + strconv.Quote(to.pkg) + ")"
	}
	switch {
	case to.pkg == e.pkg:
	case e.ofText != span{}:
		edits = append(edits, edit{e.ofText.from, e.ofText.to, of})
	default:
		edits = append(edits, edit{e.end, e.end, of})
	}
	return edits
}
