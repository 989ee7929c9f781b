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
	root  string            // of the repository
	dir   string            // for everything that is compiled
	byPkg map[string]string // the paths, by the package as rows name it
}

// compile makes the test binaries that the mutants need, with all of these mutants in them, in dir.
func compile(ctx context.Context, root, dir string, mutants []*mutant) (*binaries, error) {
	begun := time.Now()
	b := &binaries{root: root, dir: dir, byPkg: make(map[string]string)}
	files, pkgs, err := graftAll(root, mutants)
	if err != nil {
		return nil, err
	}
	copies := make(map[string]string) // in dir, by the paths of the files that they stand in for
	for file, text := range files {
		copies[file] = filepath.Join(dir, fmt.Sprintf("file%d.go", len(copies)))
		err = errors.Join(err, os.WriteFile(copies[file], []byte(text), 0o600))
	}
	text, failed := json.Marshal(map[string]any{"Replace": copies})
	overlay := filepath.Join(dir, "overlay.json")
	if err = errors.Join(err, failed, os.WriteFile(overlay, text, 0o600)); err != nil {
		return nil, err
	}
	args := append([]string{"build", "-o", os.DevNull, "-gcflags=-e", "-overlay", overlay}, pkgs...)
	if out, err := run(ctx, root, noMutant, "go", args...); err != nil {
		return nil, fmt.Errorf("a mutant does not compile: %w\n%s", err, out)
	}
	for _, m := range mutants {
		if err := b.build(ctx, m.where(), overlay); err != nil {
			return nil, err
		}
	}
	fmt.Printf("%d mutants compile, %.0f s\n", len(mutants), time.Since(begun).Seconds())
	return b, nil
}

// graftAll returns the files to compile in place of those of the repository at root: copies with
// mutants, and the switch file of each package that has any. It also returns these packages.
func graftAll(root string, mutants []*mutant) (files map[string]string, pkgs []string, err error) {
	byFile := make(map[string][]*mutant)
	for _, m := range mutants {
		byFile[m.file] = append(byFile[m.file], m)
	}
	files = make(map[string]string)
	for file, of := range byFile {
		at := filepath.Join(root, filepath.FromSlash(file))
		text, err := os.ReadFile(at)
		if err != nil {
			return nil, nil, err
		}
		grafted, pkg, err := graft(at, string(text), of)
		if err != nil {
			return nil, nil, err
		}
		files[at] = grafted
		files[filepath.Join(filepath.Dir(at), "mutants_switch.go")] = switchFile(pkg)
		pkgs = append(pkgs, "./"+path.Dir(file))
	}
	slices.Sort(pkgs)
	return files, slices.Compact(pkgs), nil
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
