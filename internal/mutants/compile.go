package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// binaries are compiled tests, with all mutants in them.
type binaries struct {
	root   string            // of the repository
	dir    string            // for everything that is compiled
	byPkg  map[string]string // the paths, by the package as rows name it
	copies map[string]string // the files in dir that stand in for others, by the paths of these
}

// compile compiles all mutants, and makes the test binaries that the chosen ones need, in dir.
func compile(ctx context.Context, root, dir string, all, chosen []*mutant) (*binaries, error) {
	begun := time.Now()
	b := &binaries{root: root, dir: dir, byPkg: make(map[string]string), copies: make(map[string]string)}
	files := make(map[string][]*mutant)
	for _, m := range all {
		files[m.file] = append(files[m.file], m)
	}
	for file, mutants := range files {
		if err := b.graft(file, mutants); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": b.copies})
	overlay := filepath.Join(dir, "overlay.json")
	if err = errors.Join(err, os.WriteFile(overlay, text, 0o600)); err != nil {
		return nil, err
	}
	var pkgs []string
	for file := range files {
		pkgs = append(pkgs, "./"+path.Dir(file))
	}
	slices.Sort(pkgs)
	args := append([]string{"build", "-o", os.DevNull, "-gcflags=-e", "-overlay", overlay}, slices.Compact(pkgs)...)
	if out, err := run(ctx, root, noMutant, "go", args...); err != nil {
		return nil, fmt.Errorf("a mutant does not compile: %w\n%s", err, out)
	}
	for _, m := range chosen {
		if err := b.build(ctx, m.where(), overlay); err != nil {
			return nil, err
		}
	}
	fmt.Printf("%d mutants compile, %.0f s\n", len(all), time.Since(begun).Seconds())
	return b, nil
}

// graft writes a copy of a file with its mutants, and the switch file of its package.
func (b *binaries) graft(file string, mutants []*mutant) error {
	text, err := os.ReadFile(filepath.Join(b.root, filepath.FromSlash(file)))
	if err != nil {
		return err
	}
	grafted, pkg, err := graft(file, string(text), mutants)
	if err != nil {
		return err
	}
	return errors.Join(
		b.put(file, grafted),
		b.put(path.Join(path.Dir(file), "mutants_switch.go"), switchFile(pkg)),
	)
}

// put gives the compiler a text in place of a file, which need not exist.
func (b *binaries) put(file, text string) error {
	file = filepath.Join(b.root, filepath.FromSlash(file))
	if b.copies[file] == "" {
		b.copies[file] = filepath.Join(b.dir, fmt.Sprintf("file%d.go", len(b.copies)))
	}
	return os.WriteFile(b.copies[file], []byte(text), 0o600)
}

// build compiles the tests of one package, unless that is done.
func (b *binaries) build(ctx context.Context, pkg, overlay string) error {
	if b.byPkg[pkg] != "" {
		return nil
	}
	bin := filepath.Join(b.dir, fmt.Sprintf("%d.test", len(b.byPkg)))
	out, err := run(ctx, b.root, noMutant, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-gcflags=-e",
		"-overlay", overlay, "-o", bin, pkg)
	if err != nil {
		return fmt.Errorf("the tests of %s do not compile: %w\n%s", pkg, err, out)
	}
	b.byPkg[pkg] = bin
	return nil
}

// test runs tests of a package in its directory, as go test does, with one mutant in force.
func (b *binaries) test(ctx context.Context, id int, pkg, tests string, flags ...string) (out string, err error) {
	args := append([]string{"-test.v", "-test.timeout=" + testTimeout.String(), "-test.run=" + tests}, flags...)
	return run(ctx, filepath.Join(b.root, filepath.FromSlash(pkg)), id, b.byPkg[pkg], args...)
}
