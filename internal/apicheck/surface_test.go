package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const command = "go run ./internal/apicheck -write"

// The files of api say what the packages export.
func TestAPI(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	if runtime.GOOS != "linux" {
		t.Skip("the files of api describe the packages as they are on Linux")
	}
	want, err := surfaces("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(want["flotilla.txt"]) == 0 {
		t.Error("the root package exports nothing: this test sees nothing")
	}
	dir := filepath.Join("..", "..", "api")
	have, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range have {
		if _, ok := want[filepath.Base(path)]; !ok {
			t.Errorf("api/%s describes a package that is not there; run: %s", filepath.Base(path), command)
		}
	}
	for name, text := range want {
		old, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%v; run: %s", err, command)
			continue
		}
		if lines := changes(string(old), text); len(lines) > 0 {
			t.Errorf("the exports differ from api/%s; if that is intended run: %s\n%s", name, command, strings.Join(lines, "\n"))
		}
	}
}

// changes returns the lines that are in one of two sorted texts only.
func changes(old, now string) (lines []string) {
	o, n := strings.Split(old, "\n"), strings.Split(now, "\n")
	for _, l := range o {
		if !slices.Contains(n, l) {
			lines = append(lines, "- "+l)
		}
	}
	for _, l := range n {
		if !slices.Contains(o, l) {
			lines = append(lines, "+ "+l)
		}
	}
	return lines
}

func TestChanges(t *testing.T) {
	for _, tt := range []struct {
		name, old, now string
		want           []string
	}{
		{"the same", "a\nb\n", "a\nb\n", nil},
		{"one more", "a\n", "a\nb\n", []string{"+ b"}},
		{"one less", "a\nb\n", "b\n", []string{"- a"}},
		{"another", "a\nb\n", "a\nc\n", []string{"- b", "+ c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, changes(tt.old, tt.now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSurface(t *testing.T) {
	const source = `package p

const A, b = 1, 2
const C T = 7

var V *S

type T int
func (T) String() string { return "" }

type inner struct { F, g int }
func (*inner) M(a, b int) {}
func (inner) n() {}

type S struct {
	inner
	T
	H func(x T) error ` + "`json:\"h\"`" + `
	i int
}

type I interface { Close() error; seal() }
type G[K comparable] struct { Key K }
func (g *G[K]) Get(k K) (K, bool) { return k, true }
type Al = S
func F[X any](x X) []X { return nil }
func f() {}
`
	want := []string{
		"const A untyped int = 1",
		"const C T = 7",
		"func F[X any](x X) []X",
		"method (*G) Get(k K) (K, bool)",
		"method (*S) M(a int, b int)",
		"method (S) String() string",
		"method (T) String() string",
		"type Al = S",
		"type G struct, Key K",
		"type G[K comparable] struct",
		"type I interface, Close() error",
		"type I interface, unexported methods",
		"type S struct",
		"type S struct, F int",
		"type S struct, H func(x T) error `json:\"h\"`",
		"type S struct, embedded T",
		"type T int",
		"var V *S",
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := new(types.Config).Check("p", fset, []*ast.File{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, surface(pkg)); diff != "" {
		t.Error(diff)
	}
}

// An alias of a type of an internal package shows what users get by it.
func TestSurfaceOfInternalAlias(t *testing.T) {
	below := types.NewPackage(modulePath+"/internal/below", "below")
	member := types.NewNamed(types.NewTypeName(token.NoPos, below, "Member", nil), nil, nil)
	member.SetUnderlying(types.NewStruct([]*types.Var{
		types.NewField(token.NoPos, below, "ID", types.Typ[types.String], false),
	}, nil))
	pkg := types.NewPackage(modulePath, "flotilla")
	name := types.NewTypeName(token.NoPos, pkg, "Member", nil)
	types.NewAlias(name, member)
	pkg.Scope().Insert(name)
	want := []string{"type Member = internal/below.Member", "type Member struct, ID string"}
	if diff := cmp.Diff(want, surface(pkg)); diff != "" {
		t.Error(diff)
	}
}
