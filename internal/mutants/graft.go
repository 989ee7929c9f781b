package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
)

// variable is the environment variable with the number of the mutant that is in force.
//
// All mutants of a package are compiled at once, because compiling takes most of the time. Each
// function with a mutant gets a copy with the broken line. The function begins with a test whether
// to call the copy in its place.
const variable = "FLOTILLA_MUTANT"

// switchFile returns the file that is added to each package with mutants. It reads the variable.
// The guard is started without the environment of its parent. So the file also looks at the
// environment of the processes above its own.
func switchFile(pkg string) string {
	return fmt.Sprintf(`package %s

import (
	mutantsBytes "bytes"
	mutantsFmt "fmt"
	mutantsOS "os"
)

var mutantOn = findMutant()

func findMutant() string {
	value, ok := mutantsOS.LookupEnv(%q)
	for pid, n := mutantsOS.Getppid(), 0; !ok && pid > 1 && n < 4; n++ {
		environment, _ := mutantsOS.ReadFile(mutantsFmt.Sprintf("/proc/%%d/environ", pid))
		for _, v := range mutantsBytes.Split(environment, []byte{0}) {
			if rest, found := mutantsBytes.CutPrefix(v, []byte(%q)); found {
				value, ok = string(rest), true
			}
		}
		status, _ := mutantsOS.ReadFile(mutantsFmt.Sprintf("/proc/%%d/stat", pid))
		var state string
		if _, err := mutantsFmt.Sscanf(string(status[mutantsBytes.LastIndexByte(status, ')')+1:]), "%%s %%d", &state, &pid); err != nil {
			break
		}
	}
	return value
}
`, pkg, variable, variable+"=")
}

// edit replaces a part of a file.
type edit struct {
	from, to int
	text     string
}

// apply returns the text with the edits made.
func apply(text string, edits []edit) string {
	// From the end, so that the offsets of the others stay right.
	slices.SortStableFunc(edits, func(a, b edit) int { return b.from - a.from })
	for _, e := range edits {
		text = text[:e.from] + e.text + text[e.to:]
	}
	return text
}

// graft returns a file's text with copies for its mutants, and the name of its package.
func graft(path, text string, mutants []*mutant) (grafted, pkg string, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, text, parser.SkipObjectResolution)
	if err != nil {
		return "", "", err
	}
	at := func(p token.Pos) int { return fset.Position(p).Offset }
	var edits []edit
	var copies strings.Builder
	named := make(map[*ast.FuncDecl]bool)
	for _, m := range mutants {
		f := functionOf(fset, file, m.number)
		if f == nil {
			return "", "", fmt.Errorf("%s: the line is in no function", m.name())
		}
		if f.Type.TypeParams != nil {
			return "", "", fmt.Errorf("%s: a generic function cannot be copied", m.name())
		}
		first := fset.Position(f.Pos()).Line
		lines := strings.Split(text[at(f.Pos()):at(f.End())], "\n")
		lines[m.number-first] = m.mutant
		copied := fmt.Sprintf("%s_mutant%d", f.Name.Name, m.id)
		head := at(f.Name.Pos()) - at(f.Pos())
		if m.number == first { // a function of one line: the mutant contains its name
			head = strings.Index(lines[0], f.Name.Name+"(")
		}
		lines[0] = lines[0][:head] + copied + lines[0][head+len(f.Name.Name):]
		// Messages of the compiler then name the line of the original.
		fmt.Fprintf(&copies, "\n//line %s:%d\n%s\n", path, first, strings.Join(lines, "\n"))

		names, renamed := parameters(f, at)
		if !named[f] {
			named[f] = true
			edits = append(edits, renamed...)
		}
		call := copied + "(" + strings.Join(names[1:], ", ") + ")"
		if names[0] != "" {
			call = names[0] + "." + call
		}
		if f.Type.Results != nil {
			call = "return " + call
		} else {
			call += "; return"
		}
		lbrace := at(f.Body.Lbrace) + 1
		edits = append(edits, edit{lbrace, lbrace, fmt.Sprintf(" if mutantOn == \"%d\" { %s };", m.id, call)})
	}
	return apply(text, edits) + copies.String(), file.Name.Name, nil
}

// functionOf returns the function that a line of a file is in, or nil.
func functionOf(fset *token.FileSet, file *ast.File, number int) *ast.FuncDecl {
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if ok && f.Body != nil && fset.Position(f.Pos()).Line <= number && number <= fset.Position(f.End()).Line {
			return f
		}
	}
	return nil
}

// parameters returns the names of a function's receiver, empty if it has none, and parameters. The
// edits give names to those that have none.
func parameters(f *ast.FuncDecl, at func(token.Pos) int) (names []string, edits []edit) {
	fields := slices.Clone(f.Type.Params.List)
	if f.Recv == nil {
		names = append(names, "")
	} else {
		fields = append(slices.Clone(f.Recv.List), fields...)
	}
	for _, field := range fields {
		fresh := func() string { return fmt.Sprintf("mutantArg%d", len(names)) }
		dots := ""
		if _, ok := field.Type.(*ast.Ellipsis); ok {
			dots = "..."
		}
		if len(field.Names) == 0 {
			edits = append(edits, edit{at(field.Pos()), at(field.Pos()), fresh() + " "})
			names = append(names, fresh()+dots)
		}
		for _, id := range field.Names {
			name := id.Name
			if name == "_" {
				name = fresh()
				edits = append(edits, edit{at(id.Pos()), at(id.End()), name})
			}
			names = append(names, name+dots)
		}
	}
	return names, edits
}
