// Package gotypes parses and type-checks the packages of a module, for the repository's own checks.
// It asks the go command for the list of files and for the export data of other modules. So it
// needs only the standard library, and compiles nothing of this module. It sees the files of the
// platform that the go command builds for, and no tests.
package gotypes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Package is one package of the module.
type Package struct {
	// Path is the import path.
	Path string

	// Name is the name in the package clause.
	Name string

	// Fset has the positions of Files.
	Fset *token.FileSet

	// Files are the parsed files, without comments.
	Files []*ast.File

	// Types is what the type checker makes of the package.
	Types *types.Package

	// Info has Uses and Types only.
	Info *types.Info
}

// listed is what the go command says about a package.
type listed struct {
	ImportPath, Name, Dir, Export string
	GoFiles, Imports              []string
	DepOnly                       bool
	Module                        *struct{ Main bool }
}

// Load parses and checks the packages of the module in dir that match the patterns, as for go list.
// Each package comes after those that it imports. The error is that of the go command, the parser
// or the type checker.
func Load(dir string, patterns ...string) ([]*Package, error) {
	return LoadOverlay(dir, nil, patterns...)
}

// LoadOverlay is [Load] with other texts in place of some files, by their paths. A path that no
// package has is that of one more file of the package in its directory. A path in the directory of
// no package is an error. The error of the type checker names all that it finds in a package.
func LoadOverlay(dir string, overlay map[string]string, patterns ...string) ([]*Package, error) {
	overlay = maps.Clone(overlay) // check takes out what it uses
	all, err := list(dir, append([]string{"-deps", "-json=ImportPath,Name,Dir,GoFiles,Imports,DepOnly,Module"}, patterns...))
	if err != nil {
		return nil, err
	}
	own := make(map[string]*types.Package)
	others := make(map[string]bool)
	for _, l := range all {
		if l.Module != nil && l.Module.Main {
			own[l.ImportPath] = nil
		}
	}
	for _, l := range all {
		if _, ok := own[l.ImportPath]; ok {
			for _, path := range l.Imports {
				if _, ok := own[path]; !ok {
					others[path] = true
				}
			}
		}
	}
	var exports []listed
	if len(others) > 0 {
		exports, err = list(dir, append([]string{"-deps", "-export", "-json=ImportPath,Export"}, slices.Sorted(maps.Keys(others))...))
		if err != nil {
			return nil, err
		}
	}
	fset := token.NewFileSet()
	imp := newImports(fset, own, exports)
	var pkgs []*Package
	for _, l := range all {
		if _, ok := own[l.ImportPath]; !ok {
			continue
		}
		p, err := check(l, fset, imp, overlay)
		if err != nil {
			return nil, err
		}
		own[l.ImportPath] = p.Types
		if !l.DepOnly {
			pkgs = append(pkgs, p)
		}
	}
	for path := range overlay {
		return nil, fmt.Errorf("no package has %s", path)
	}
	return pkgs, nil
}

// list runs go list.
func list(dir string, args []string) (all []listed, err error) {
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list in %s: %w\n%s", dir, err, stderr.Bytes())
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading the output of go list: %w", err)
		}
		all = append(all, l)
	}
}

// check parses and checks one package.
func check(l listed, fset *token.FileSet, imp types.Importer, overlay map[string]string) (*Package, error) {
	p := &Package{Path: l.ImportPath, Name: l.Name, Fset: fset, Info: &types.Info{
		Uses:  make(map[*ast.Ident]types.Object),
		Types: make(map[ast.Expr]types.TypeAndValue),
	}}
	names := l.GoFiles
	for _, path := range slices.Sorted(maps.Keys(overlay)) {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) == l.Dir {
			names = append(names, filepath.Base(path))
		}
	}
	for _, name := range names {
		path := filepath.Join(l.Dir, name)
		var text any // nil: that of the file
		if t, ok := overlay[path]; ok {
			text = t
			delete(overlay, path)
		}
		f, err := parser.ParseFile(fset, path, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p.Files = append(p.Files, f)
	}
	var errs []error
	conf := types.Config{Importer: imp, Error: func(err error) { errs = append(errs, err) }}
	p.Types, _ = conf.Check(p.Path, fset, p.Files, p.Info)
	return p, errors.Join(errs...)
}

// imports finds packages of the module among those that are checked already, and others by their
// export data.
type imports struct {
	own    map[string]*types.Package
	others types.Importer
}

func newImports(fset *token.FileSet, own map[string]*types.Package, exports []listed) *imports {
	files := make(map[string]string)
	for _, l := range exports {
		files[l.ImportPath] = l.Export
	}
	return &imports{own, importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if files[path] == "" {
			return nil, fmt.Errorf("the go command has no export data of %s", path)
		}
		return os.Open(files[path])
	})}
}

// Import returns the package with the path.
func (i *imports) Import(path string) (*types.Package, error) {
	if p := i.own[path]; p != nil {
		return p, nil
	}
	return i.others.Import(path)
}
