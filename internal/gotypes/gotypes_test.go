package gotypes

import (
	"go/types"
	"slices"
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	pkgs, err := Load("../..", "./hold", "./internal/seal")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(pkgs, func(p *Package) bool { return p.Name == "hold" })
	if len(pkgs) != 2 || i < 0 {
		t.Fatalf("%d packages, want hold and seal", len(pkgs))
	}
	exported, err := pkgs[i].Exported()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := exported.Scope().Lookup("Role").(*types.TypeName); !ok {
		t.Error("the export data have no type Role")
	}
	s, err := pkgs[i].Parse()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Files) != len(pkgs[i].Files) || s.Types.Scope().Lookup("Role") == nil || len(s.Info.Uses) == 0 {
		t.Errorf("%d files, %d uses, want all files and the uses of names", len(s.Files), len(s.Info.Uses))
	}
}

func TestLoadNothing(t *testing.T) {
	if _, err := Load("../..", "./no/such/package"); err == nil || !strings.Contains(err.Error(), "directory not found") {
		t.Errorf("%v, want what the go command says", err)
	}
}
