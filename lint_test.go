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
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The lint tests enforce the rules of CONTRIBUTING.md. They read the text of the whole repository,
// nested modules included. Only TestStructure needs types, and the go command for them.

const modulePath = "github.com/flotilla-ha/flotilla"

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
func walk(ext string, f func(path string, content []byte) error) error {
	return filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
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
		if err != nil {
			return err
		}
		return f(filepath.ToSlash(path), content)
	})
}

// sources returns every Go file of the repository. They are parsed once.
func sources(t *testing.T) []*source {
	t.Helper()
	all, err := parseSources()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d Go files found", len(all))
	}
	return all
}

var parseSources = sync.OnceValues(func() (all []*source, err error) {
	fset := token.NewFileSet()
	err = walk(".go", func(path string, content []byte) error {
		file, err := parser.ParseFile(fset, path, content, parser.ParseComments|parser.SkipObjectResolution)
		all = append(all, &source{
			path:  path,
			dir:   filepath.ToSlash(filepath.Dir(path)),
			test:  strings.HasSuffix(path, "_test.go"),
			lines: bytes.Count(content, []byte{'\n'}),
			ast:   file,
			fset:  fset,
		})
		return err
	})
	return all, err
})

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

// layers is the order of the packages, from the top. A package imports only what is below its line.
// Packages of internal that are not listed are mechanisms, the last line: they may import each
// other.
func layers() [][]string {
	return [][]string{
		{"."},
		{"vip", "kv"},
		{"internal/limits", "internal/turns", "internal/expiry"},
		{"internal/hooks"},
		{"internal/frontend"},
		{"internal/frontend/tickets", "internal/certs"},
		{"internal/certs/quarantine"},
		{"internal/page", "internal/metrics"},
		{"internal/view/viewtest"},
		{"internal/ops", "internal/view"},
		{"internal/rotation", "internal/upgrade"},
		{"internal/membership", "internal/roles"},
		{"internal/lease"},
		{"internal/replica"},
		{"internal/changes"},
		{"internal/peers", "internal/self"},
		{"internal/applied"},
		{"internal/events"},
		{"internal/state"},
		{"hold", "status"},
	}
}

// TestLayers checks that imports go down only. Tools and laboratories use whatever they need.
func TestLayers(t *testing.T) {
	order := layers()
	level := func(dir string) int {
		if i := slices.IndexFunc(order, func(dirs []string) bool { return slices.Contains(dirs, dir) }); i >= 0 {
			return i
		}
		switch {
		case within(dir, "internal"):
			return len(order)
		case dir == "event" || dir == "metric": // every part may have events, and be measured
			return len(order) + 1
		}
		return -1 // above: commands, examples, clustertest
	}
	for _, s := range sources(t) {
		tool := slices.ContainsFunc([]string{"apicheck", "gotypes", "mixed", "mutants", "netlab", "simnet", "synctest"}, func(name string) bool {
			return within(s.dir, "internal/"+name)
		})
		if s.test || tool {
			continue
		}
		for _, spec := range s.ast.Imports {
			path := importPath(t, spec)
			if !within(path, modulePath) {
				continue
			}
			to := strings.TrimPrefix(strings.TrimPrefix(path, modulePath), "/")
			if to == "" {
				to = "."
			}
			from, below := level(s.dir), level(to)
			if below < from || below == from && from >= 0 && from < len(order) {
				t.Errorf("%s: %s imports %s, which is not below it", s.at(spec), s.dir, to)
			}
		}
	}
}

func TestForbiddenImports(t *testing.T) {
	code := func(dirs ...string) func(*source) bool {
		return func(s *source) bool { return !s.test && slices.Contains(dirs, s.dir) }
	}
	below := func(dir string) func(*source) bool {
		return func(s *source) bool { return !s.test && within(s.dir, dir) }
	}
	const (
		metrics  = "every user would link it; metrics have a module of their own"
		deployed = "a library does not know how programs are deployed"
		cli      = "a library has no command line"
		disks    = "disks belong to internal/durable"
		replicas = "replicas would differ"
		pure     = "the state machine is pure"
		bare     = "programs without floating addresses do not link it"
		guard    = "addresses know one method of the cluster, and a guard process is small"
	)
	for _, rule := range []struct {
		name      string
		applies   func(*source) bool
		forbidden map[string]string // import path with all below it: the reason
	}{
		{"code", func(s *source) bool {
			forTests := []string{"clustertest", "internal/synctest", "internal/certs/stubca", "internal/durable/disktest"}
			return !s.test && !slices.Contains(forTests, s.dir) && !within(s.dir, "bench")
		}, map[string]string{
			"testing":                             "its flags and its code do not belong in users' programs",
			modulePath + "/internal/synctest":     "it imports testing",
			modulePath + "/internal/certs/stubca": "it is for tests",
			modulePath + "/clustertest/testca":    "it is for tests",
			modulePath + "/internal/gotypes":      "it is for the repository's own checks",
		}},
		{"everything", func(*source) bool { return true }, map[string]string{
			"github.com/stretchr/testify": "tests compare with go-cmp and word their messages themselves",
			"github.com/pkg/errors":       "package errors and %w are enough",
		}},
		{"tests", func(s *source) bool { return s.test && !within(s.dir, "bench") && !within(s.dir, "examples") }, map[string]string{
			"testing/synctest": "it crashes with the race detector of Go 1.26; use internal/synctest",
		}},
		{"root", code("."), map[string]string{
			"github.com/prometheus":               metrics,
			"go.opentelemetry.io":                 metrics,
			"expvar":                              "it registers in a mutable global",
			modulePath + "/vip":                   "programs without floating addresses need no raw sockets",
			modulePath + "/clustertest":           "it imports testing",
			"github.com/docker":                   deployed,
			"github.com/moby":                     deployed,
			"k8s.io":                              deployed,
			"github.com/spf13":                    cli,
			"github.com/urfave/cli":               cli,
			"github.com/alecthomas/kong":          cli,
			"flag":                                cli,
			"go.etcd.io/bbolt":                    disks,
			"github.com/hashicorp/raft-boltdb/v2": disks,
			"golang.org/x/crypto/nacl":            "only internal/seal encrypts",
		}},
		{"the state machine", func(s *source) bool {
			return s.path == "fsm.go" || !s.test && s.dir == "internal/state"
		}, map[string]string{
			"net":                            pure + ": it uses no network",
			"math/rand":                      pure + ": nothing is random, or " + replicas,
			"crypto/rand":                    pure + ": nothing is random, or " + replicas,
			"os":                             pure + ": it does not depend on this machine, or " + replicas,
			"crypto/tls":                     pure + ": it knows nothing of certificates",
			"github.com/caddyserver":         pure + ": it knows nothing of certificates",
			modulePath + "/internal/wire":    pure + ": it uses no network",
			modulePath + "/internal/durable": pure + ": it uses no disk",
		}},
		{"internal/seal", code("internal/seal"), map[string]string{
			"net":       "it turns bytes into bytes",
			"os":        "it turns bytes into bytes",
			"time":      "sealing does not depend on a clock",
			"math/rand": "keys and nonces come from crypto/rand",
			modulePath:  "it is below all other packages",
		}},
		{"internal/wire", below("internal/wire"), map[string]string{
			"github.com/caddyserver":         "it knows nothing of public certificates",
			modulePath + "/internal/durable": "it uses no disk",
			modulePath + "/internal/simnet":  "the network in memory is for tests",
		}},
		{"internal/durable", below("internal/durable"), map[string]string{
			"net":                         "it uses no network",
			"github.com/caddyserver":      "it knows nothing of certificates",
			modulePath + "/internal/wire": "it uses no network",
		}},
		{"vip", code("vip", "hold", "internal/deathnotice", "internal/notify", "internal/fence", "internal/guard", "internal/guard/remover", "internal/guard/reporter", "internal/l2"), map[string]string{
			modulePath + "/internal/wire":    guard,
			modulePath + "/internal/durable": guard,
			"github.com/hashicorp":           guard,
			"go.etcd.io":                     guard,
			modulePath + "/internal/seal":    "a guard process does not know the secret",
			"github.com/caddyserver":         "addresses know nothing of certificates",
		}},
		{"the guard of all programs", code("internal/guard", "internal/guard/reporter"), map[string]string{
			"github.com/vishvananda/netlink":       bare,
			"github.com/google/nftables":           bare,
			modulePath + "/internal/fence":         bare,
			modulePath + "/internal/guard/remover": bare,
		}},
		{"status", code("status"), map[string]string{
			modulePath:   "it is data, for programs that have no node too",
			"github.com": "it is data, and needs nothing else",
		}},
		{"internal/view", below("internal/view"), map[string]string{
			modulePath + "/cmd": "it says what is shown, and does not know how",
		}},
		{"internal/simnet", code("internal/simnet"), map[string]string{
			"github.com": "it replaces package net and needs nothing else",
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
						if within(path, forbidden) && !ownTool(s, path) {
							t.Errorf("%s imports %s: %s", s.at(spec), path, reason)
						}
					}
				}
			}
			if seen == 0 {
				t.Error("the rule applies to no file")
			}
		})
	}
}

// TestStateReadsNoClock checks that the state machine uses package time for durations only. A clock
// or a timer would let replicas differ.
func TestStateReadsNoClock(t *testing.T) {
	durations := []string{"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}
	seen := 0
	for _, s := range sources(t) {
		if s.test || s.dir != "internal/state" && s.path != "fsm.go" {
			continue
		}
		seen++
		ast.Inspect(s.ast, func(n ast.Node) bool {
			use, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := use.X.(*ast.Ident); ok && pkg.Name == "time" && !slices.Contains(durations, use.Sel.Name) {
				t.Errorf("%s: time.%s: replicas would differ", s.at(use), use.Sel.Name)
			}
			return true
		})
	}
	if seen < 2 {
		t.Errorf("only %d files found", seen)
	}
}

// ownTool reports whether a check of this repository imports what it shares with the others.
func ownTool(s *source, path string) bool {
	return s.dir == "internal/apicheck" && path == modulePath+"/internal/gotypes"
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
