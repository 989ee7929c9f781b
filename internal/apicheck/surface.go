package main

import (
	"fmt"
	"go/types"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/gotypes"
)

const modulePath = "github.com/flotilla-ha/flotilla"

// surfaces returns the content of each file of api by its name.
func surfaces(root string) (map[string]string, error) {
	pkgs, err := gotypes.Load(root, "./...")
	if err != nil {
		return nil, err
	}
	files := make(map[string]string)
	for _, p := range pkgs {
		if p.Name == "main" || isInternal(p.Path) {
			continue
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.Path, modulePath), "/")
		if name == "" {
			name = p.Name
		}
		files[strings.ReplaceAll(name, "/", "-")+".txt"] = strings.Join(surface(p.Types), "\n") + "\n"
	}
	return files, nil
}

func isInternal(path string) bool {
	return slices.Contains(strings.Split(path, "/"), "internal")
}

// surface returns the exported declarations of pkg, one a line, sorted.
func surface(pkg *types.Package) []string {
	w := &writer{pkg: pkg}
	for _, name := range pkg.Scope().Names() {
		if o := pkg.Scope().Lookup(name); o.Exported() {
			w.object(o)
		}
	}
	slices.Sort(w.lines)
	return slices.Compact(w.lines)
}

// writer collects the lines of one package.
type writer struct {
	pkg   *types.Package
	lines []string
}

func (w *writer) add(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

// name qualifies a type of another package: with its path if it is of this module, else its name.
func (w *writer) name(p *types.Package) string {
	switch {
	case p == w.pkg:
		return ""
	case p.Path() == modulePath:
		return p.Name()
	}
	if path, ok := strings.CutPrefix(p.Path(), modulePath+"/"); ok {
		return path
	}
	return p.Name()
}

func (w *writer) typ(t types.Type) string { return types.TypeString(t, w.name) }

// signature returns what follows the word func.
func (w *writer) signature(f *types.Func) string {
	return strings.TrimPrefix(w.typ(f.Type()), "func")
}

func (w *writer) object(o types.Object) {
	switch o := o.(type) {
	case *types.Const:
		w.add("const %s %s = %s", o.Name(), w.typ(o.Type()), o.Val().ExactString())
	case *types.Var:
		w.add("var %s %s", o.Name(), w.typ(o.Type()))
	case *types.Func:
		w.add("func %s%s", o.Name(), w.signature(o))
	case *types.TypeName:
		w.typeName(o)
	}
}

func (w *writer) typeName(o *types.TypeName) {
	if o.IsAlias() {
		target := types.Unalias(o.Type())
		w.add("type %s = %s", o.Name(), w.typ(target))
		// Users cannot look the members up where they are declared if that is internal.
		if named, ok := target.(*types.Named); ok && named.Obj().Pkg() != nil && isInternal(named.Obj().Pkg().Path()) {
			w.members(o.Name(), named)
		}
		return
	}
	named := o.Type().(*types.Named)
	name := w.typ(named)
	switch u := named.Underlying().(type) {
	case *types.Struct:
		w.add("type %s struct", name)
	case *types.Interface:
		w.add("type %s interface%s", name, unexportedMethods(u))
	default:
		w.add("type %s %s", name, w.typ(u))
	}
	w.members(o.Name(), named)
}

// unexportedMethods says whether others can implement an interface.
func unexportedMethods(u *types.Interface) string {
	for m := range u.Methods() {
		if !m.Exported() {
			return ", unexported methods"
		}
	}
	return ""
}

// members writes the exported fields and methods of a type, promoted methods too.
func (w *writer) members(name string, t *types.Named) {
	switch u := t.Underlying().(type) {
	case *types.Interface:
		for m := range u.Methods() {
			if m.Exported() {
				w.add("type %s interface, %s%s", name, m.Name(), w.signature(m))
			}
		}
		return
	case *types.Struct:
		w.fields(name, u)
	}
	values := types.NewMethodSet(t)
	for sel := range types.NewMethodSet(types.NewPointer(t)).Methods() {
		m := sel.Obj().(*types.Func)
		if !m.Exported() {
			continue
		}
		receiver := "*" + name
		if values.Lookup(m.Pkg(), m.Name()) != nil {
			receiver = name
		}
		w.add("method (%s) %s%s", receiver, m.Name(), w.signature(m))
	}
}

// fields writes the exported fields of a struct, and those of structs that it embeds unexported.
func (w *writer) fields(name string, u *types.Struct) {
	for i := range u.NumFields() {
		f, tag := u.Field(i), u.Tag(i)
		if tag != "" {
			tag = " `" + tag + "`"
		}
		switch {
		case f.Exported() && f.Embedded():
			w.add("type %s struct, embedded %s%s", name, w.typ(f.Type()), tag)
		case f.Exported():
			w.add("type %s struct, %s %s%s", name, f.Name(), w.typ(f.Type()), tag)
		case f.Embedded():
			t := f.Type()
			if p, ok := t.(*types.Pointer); ok {
				t = p.Elem()
			}
			if s, ok := t.Underlying().(*types.Struct); ok {
				w.fields(name, s)
			}
		}
	}
}
