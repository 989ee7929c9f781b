package flotilla_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// The rules of the house, which CONTRIBUTING.md explains. They are about the text of the whole repository, nested modules
// included, and need nothing but the files.

const (
	modulePath     = "github.com/flotilla-ha/flotilla"
	maxFileLines   = 600
	maxRootSurface = 45 // exported names of the root package, methods apart
)

// source is one parsed Go file.
type source struct {
	path  string // slash-separated, from the root
	dir   string // "." for the root
	test  bool
	lines int
	ast   *ast.File
	fset  *token.FileSet
}

func (s *source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

// walk calls f with each file of the repository that has the extension, in order.
func walk(t *testing.T, ext string, f func(path string, content []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ext {
			return nil
		}
		content, err := os.ReadFile(path)
		if err == nil {
			f(filepath.ToSlash(path), content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources parses every Go file of the repository.
func sources(t *testing.T) []*source {
	t.Helper()
	fset := token.NewFileSet()
	var all []*source
	walk(t, ".go", func(path string, content []byte) {
		file, err := parser.ParseFile(fset, path, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &source{
			path:  path,
			dir:   filepath.ToSlash(filepath.Dir(path)),
			test:  strings.HasSuffix(path, "_test.go"),
			lines: bytes.Count(content, []byte{'\n'}),
			ast:   file,
			fset:  fset,
		})
	})
	if len(all) < 50 {
		t.Fatalf("only %d Go files found", len(all))
	}
	return all
}

// byDir groups files by directory.
func byDir(all []*source) map[string][]*source {
	dirs := make(map[string][]*source)
	for _, s := range all {
		dirs[s.dir] = append(dirs[s.dir], s)
	}
	return dirs
}

// within reports whether path is p or below it.
func within(path, p string) bool { return path == p || strings.HasPrefix(path, p+"/") }

func TestForbiddenImports(t *testing.T) {
	code := func(dirs ...string) func(*source) bool {
		return func(s *source) bool { return !s.test && slices.Contains(dirs, s.dir) }
	}
	// within would forbid what is below the root package too.
	for _, s := range sources(t) {
		if !s.test && slices.Contains([]string{"vip", "hold", "internal/deathnotice", "internal/fence", "internal/guard", "internal/l2"}, s.dir) {
			for _, spec := range s.ast.Imports {
				if importPath(t, spec) == modulePath {
					t.Errorf("%s imports the root package: addresses know one method of the cluster", s.at(spec))
				}
			}
		}
	}
	for _, rule := range []struct {
		name      string
		applies   func(*source) bool
		forbidden map[string]string // import path, or one that it is below: the reason
	}{
		{"code", func(s *source) bool {
			return !s.test && s.dir != "clustertest" && s.dir != "internal/synctest" && !within(s.dir, "bench")
		}, map[string]string{
			"testing":                         "its flags and its code do not belong in users' programs",
			modulePath + "/internal/synctest": "it imports testing",
		}},
		{"everything", func(*source) bool { return true }, map[string]string{
			"github.com/stretchr/testify": "tests compare with go-cmp and say themselves what is wrong",
			"github.com/pkg/errors":       "package errors and %w do it",
		}},
		{"tests", func(s *source) bool { return s.test && !within(s.dir, "bench") && !within(s.dir, "examples") }, map[string]string{
			"testing/synctest": "the race detector of Go 1.26 crashes in it; internal/synctest is like it",
		}},
		{"root", code("."), map[string]string{
			"github.com/prometheus":               "every user would link it; metrics are for a package of their own",
			"go.opentelemetry.io":                 "every user would link it; metrics are for a package of their own",
			modulePath + "/vip":                   "raw sockets do not belong in programs without a floating address",
			modulePath + "/clustertest":           "it imports testing",
			"github.com/docker":                   "a library does not know what it is deployed with",
			"github.com/moby":                     "a library does not know what it is deployed with",
			"k8s.io":                              "a library does not know what it is deployed with",
			"github.com/spf13":                    "a library has no command line",
			"github.com/urfave/cli":               "a library has no command line",
			"github.com/alecthomas/kong":          "a library has no command line",
			"flag":                                "a library has no command line",
			"expvar":                              "it registers in a mutable global",
			"go.etcd.io/bbolt":                    "disks are internal/durable's",
			"github.com/hashicorp/raft-boltdb/v2": "disks are internal/durable's",
			"golang.org/x/crypto/nacl":            "what seals is in internal/seal and nowhere else",
		}},
		{"the state machine", func(s *source) bool {
			return slices.Contains([]string{"fsm.go", "state.go", "command.go", "codec.go", "snapshot.go"}, s.path)
		}, map[string]string{
			"net":                            "the state machine knows nothing of networks",
			"time":                           "the state machine knows nothing of clocks: replicas would differ",
			"math/rand":                      "the state machine knows nothing of chance: replicas would differ",
			"crypto/rand":                    "the state machine knows nothing of chance: replicas would differ",
			"os":                             "the state machine knows nothing of this machine: replicas would differ",
			"crypto/tls":                     "the state machine knows nothing of certificates",
			"github.com/caddyserver":         "the state machine knows nothing of certificates",
			modulePath + "/internal/wire":    "the state machine knows nothing of networks",
			modulePath + "/internal/durable": "the state machine knows nothing of disks",
		}},
		{"internal/seal", code("internal/seal"), map[string]string{
			"net":       "it turns bytes into bytes",
			"os":        "it turns bytes into bytes",
			"time":      "what is sealed does not depend on a clock",
			"math/rand": "keys and nonces come from crypto/rand",
			modulePath:  "it is below all others",
		}},
		{"internal/wire", code("internal/wire"), map[string]string{
			"github.com/caddyserver":         "it knows nothing of public certificates",
			modulePath + "/internal/durable": "it knows nothing of disks",
			modulePath + "/internal/simnet":  "the network in memory is for tests",
		}},
		{"internal/durable", code("internal/durable"), map[string]string{
			"net":                         "it knows nothing of networks",
			"github.com/caddyserver":      "it knows nothing of certificates",
			modulePath + "/internal/wire": "it knows nothing of networks",
		}},
		{"vip", code("vip", "hold", "internal/deathnotice", "internal/fence", "internal/guard", "internal/l2"), map[string]string{
			modulePath + "/internal/wire":    "addresses know one method of the cluster, and a guard is small",
			modulePath + "/internal/durable": "addresses know one method of the cluster, and a guard is small",
			modulePath + "/internal/seal":    "a guard does not know the secret",
			"github.com/hashicorp":           "addresses know one method of the cluster, and a guard is small",
			"go.etcd.io":                     "addresses know one method of the cluster, and a guard is small",
			"github.com/caddyserver":         "addresses know nothing of certificates",
		}},
		{"internal/simnet", code("internal/simnet"), map[string]string{
			"github.com": "it stands in for package net, and needs nothing else",
		}},
	} {
		t.Run(rule.name, func(t *testing.T) {
			seen := 0
			for _, s := range sources(t) {
				if !rule.applies(s) {
					continue
				}
				seen++
				for _, spec := range s.ast.Imports {
					path := importPath(t, spec)
					for forbidden, reason := range rule.forbidden {
						if within(path, forbidden) {
							t.Errorf("%s imports %s: %s", s.at(spec), path, reason)
						}
					}
				}
			}
			if seen == 0 {
				t.Error("there is no such file any more")
			}
		})
	}
}

// importPath returns the path that spec imports.
func importPath(t *testing.T, spec *ast.ImportSpec) string {
	t.Helper()
	path, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFileLength(t *testing.T) {
	for _, s := range sources(t) {
		if s.lines > maxFileLines {
			t.Errorf("%s has %d lines, %d are allowed: a file is for one noun", s.path, s.lines, maxFileLines)
		}
	}
}

func TestNoInit(t *testing.T) {
	allowed := map[string]string{
		"vip/init_linux.go": "the program's binary is its guard's too, without a word in the program's main; every other process is left alone",
	}
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				if allowed[s.path] == "" {
					t.Errorf("%s: an import has no effects", s.at(f))
				}
				delete(allowed, s.path)
			}
		}
	}
	for path := range allowed {
		t.Errorf("%s is allowed an init and has none any more", path)
	}
}

func TestNoMutableGlobals(t *testing.T) {
	allowed := map[string]string{ // file and name: why it must be one
		"vip/system_linux.go machine": "a process has one guard, and one fence in the kernel, whoever calls Run",
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
						t.Errorf("%s: %s is a package variable; make it a constant, a function or a field, or give the reason in this test", s.at(name), name.Name)
					}
					delete(allowed, key)
				}
			}
		}
	}
	for key := range allowed {
		t.Errorf("%s is allowed and not there any more", key)
	}
}

// isSentinel reports whether a variable is an error to compare with, of a type to look for, or another package's by its name.
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
		t.Errorf("the root package exports %d names, %d are allowed: a reader has to hold them in the head", len(names), maxRootSurface)
	}
}

// exportedNames returns the package-level names that d declares and others can use, methods apart.
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
			t.Errorf("package %s has %d package comments, want one", dir, n)
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

// fault is one thing wrong at one place.
type fault struct {
	node ast.Node
	text string
}

// undocumented returns what is exported by d and has no comment: names, methods of exported types, fields of exported structs.
func (s *source) undocumented(d ast.Decl) (faults []fault) {
	want := func(node ast.Node, name string, doc *ast.CommentGroup) {
		text := strings.TrimRight(doc.Text(), "\n")
		last := text[strings.LastIndexByte(text, '\n')+1:]
		switch {
		case text == "":
			faults = append(faults, fault{node, name + " has no comment"})
		case !strings.HasPrefix(text, name+" "):
			faults = append(faults, fault{node, "the comment of " + name + " does not begin with its name"})
		case !strings.HasPrefix(last, "\t") && !strings.HasSuffix(last, ".") && !strings.HasSuffix(last, ".)"):
			faults = append(faults, fault{node, "the comment of " + name + " does not end as a sentence does"})
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

// bareFields returns the exported fields that have no comment and do not share that of the line above.
func (s *source) bareFields(st *ast.StructType) (bare []*ast.Field) {
	shared := -1 // the last line of a field that is documented or shares
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

// TestMarkdown checks that what the documents name is there: files, headings, tests.
func TestMarkdown(t *testing.T) {
	tests := make(map[string]bool)
	base := make(map[string]bool) // file names
	for _, s := range sources(t) {
		base[filepath.Base(s.path)] = true
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test {
				tests[f.Name.Name] = true
			}
		}
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	test := regexp.MustCompile("`((?:Test|Fuzz|Benchmark|Example)[A-Z]\\w*)`")
	file := regexp.MustCompile("`([a-z_]+\\.go)`")
	walk(t, ".md", func(path string, content []byte) {
		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			target, fragment, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") {
				continue // another site
			}
			to := filepath.Join(filepath.Dir(path), filepath.FromSlash(target))
			if target == "" {
				to = path
			}
			text, err := os.ReadFile(to)
			if info, staterr := os.Stat(to); staterr != nil || err != nil && !info.IsDir() {
				t.Errorf("%s links to %s, which is not there", path, m[1])
			} else if fragment != "" && filepath.Ext(to) == ".md" && !headings(text)[fragment] {
				t.Errorf("%s links to %s, which has no such heading", path, m[1])
			}
		}
		for _, m := range test.FindAllStringSubmatch(string(content), -1) {
			if !tests[m[1]] {
				t.Errorf("%s names %s, and there is no such test", path, m[1])
			}
		}
		for _, m := range file.FindAllStringSubmatch(string(content), -1) {
			if !base[m[1]] {
				t.Errorf("%s names %s, and there is no such file", path, m[1])
			}
		}
	})
}

// headings returns the anchors of a document's headings.
func headings(text []byte) map[string]bool {
	anchors := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if title := strings.TrimLeft(line, "#"); title != line {
			anchors[strings.Map(func(r rune) rune {
				switch {
				case r == ' ':
					return '-'
				case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
					return unicode.ToLower(r)
				}
				return -1
			}, strings.TrimSpace(title))] = true
		}
	}
	return anchors
}
