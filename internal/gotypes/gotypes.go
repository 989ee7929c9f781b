// Package gotypes loads the packages of a module with their types, for the repository's own checks.
// It asks the go command for the list of packages and for compiled export data, so it needs no
// module beside the standard library. It sees the files of the platform that the go command builds
// for, and no tests.
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
	"os"
	"os/exec"
	"path/filepath"
)

// Package is one package of the module.
type Package struct {
	Path  string   // import path
	Name  string   // as in its package clause
	Dir   string   // absolute
	Files []string // names of its Go files, without tests and other platforms' files
	fset  *token.FileSet
	imp   types.Importer
}

// Source is a package that was parsed and checked.
type Source struct {
	Fset  *token.FileSet // of Files
	Files []*ast.File    // without comments
	Types *types.Package // as the type checker sees it
	Info  *types.Info    // Uses and Types only
}

// Load lists the packages of the module in dir that match the patterns, in the order of the go
// command.
func Load(dir string, patterns ...string) ([]*Package, error) {
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps",
		"-json=ImportPath,Name,Dir,GoFiles,Export,DepOnly"}, patterns...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list in %s: %w\n%s", dir, err, stderr.Bytes())
	}
	exports := make(map[string]string)
	fset := token.NewFileSet()
	imp := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("the go command has no export data of %s", path)
		}
		return os.Open(exports[path])
	})
	var pkgs []*Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Name, Dir, Export string
			GoFiles                       []string
			DepOnly                       bool
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("what go list answers: %w", err)
		}
		exports[p.ImportPath] = p.Export
		if !p.DepOnly {
			pkgs = append(pkgs, &Package{p.ImportPath, p.Name, p.Dir, p.GoFiles, fset, imp})
		}
	}
}

// Exported returns what the package's export data say: its exported names and what they refer to.
func (p *Package) Exported() (*types.Package, error) { return p.imp.Import(p.Path) }

// Parse parses and checks the package's files, comments excluded.
func (p *Package) Parse() (*Source, error) {
	s := &Source{Fset: p.fset, Info: &types.Info{
		Uses:  make(map[*ast.Ident]types.Object),
		Types: make(map[ast.Expr]types.TypeAndValue),
	}}
	for _, name := range p.Files {
		f, err := parser.ParseFile(p.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		s.Files = append(s.Files, f)
	}
	conf := types.Config{Importer: p.imp}
	var err error
	s.Types, err = conf.Check(p.Path, p.fset, s.Files, s.Info)
	return s, err
}
