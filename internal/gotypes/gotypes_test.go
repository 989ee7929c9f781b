package gotypes

import (
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	pkgs, err := Load("../..", "./hold", "./internal/seal")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(pkgs, func(p *Package) bool { return p.Name == "hold" })
	if len(pkgs) != 2 || i < 0 {
		t.Fatalf("%d packages, want hold and seal", len(pkgs))
	}
	p := pkgs[i]
	if _, ok := p.Types.Scope().Lookup("Role").(*types.TypeName); !ok || len(p.Files) == 0 || len(p.Info.Uses) == 0 {
		t.Errorf("%d files, %d uses of names; want both, and a type Role", len(p.Files), len(p.Info.Uses))
	}
}

func TestLoadNothing(t *testing.T) {
	if _, err := Load("../..", "./no/such/package"); err == nil || !strings.Contains(err.Error(), "directory not found") {
		t.Errorf("%v, want what the go command says", err)
	}
}

// A text stands in for a file, one more belongs to the package of its directory, and the error
// names all that is wrong.
func TestLoadOverlay(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module a.test\n\ngo 1.26\n", "a.go": "package a\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, b := filepath.Join(dir, "a.go"), filepath.Join(dir, "b.go")
	if pkgs, err := LoadOverlay(dir, map[string]string{a: "package a\nvar A = B\n", b: "package a\nvar B = 1\n"}, "."); err != nil {
		t.Error(err)
	} else if pkgs[0].Types.Scope().Lookup("A") == nil {
		t.Error("the package has no A")
	}
	if _, err := LoadOverlay(dir, map[string]string{filepath.Join(dir, "b", "b.go"): "package b\n"}, "."); err == nil || !strings.Contains(err.Error(), "no package has ") {
		t.Errorf("%v, want that no package has the file", err)
	}
	_, err := LoadOverlay(dir, map[string]string{a: "package a\nfunc A() { x := 1 }\n", b: "package a\nvar B = C\n"}, ".")
	if err == nil || !strings.Contains(err.Error(), "declared and not used: x") || !strings.Contains(err.Error(), "undefined: C") {
		t.Errorf("%v, want both errors", err)
	}
}
