package gotypes

import (
	"go/types"
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
