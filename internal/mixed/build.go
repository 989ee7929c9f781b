//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nodePackage is the program that is built with both trees.
const nodePackage = "internal/mixed/node"

// errNoHistory is the error of a clone that lacks the previous release.
var errNoHistory = errors.New("is not in this clone; fetch the whole history (git fetch --unshallow)")

// programs are the files of the programs that were built.
type programs struct {
	previous, present string // of nodes
	command           string // flotilla, of the present tree
}

// repository returns the root of the module that is worked on.
func repository(ctx context.Context) (string, error) {
	out, err := run(ctx, "", "go", "env", "GOMOD")
	root := filepath.Dir(out)
	if _, missing := os.Stat(filepath.Join(root, ".ci", "previous")); err == nil && missing != nil {
		err = fmt.Errorf("run it in the repository: %w", missing)
	}
	return root, err
}

// previousRelease returns the commit in .ci/previous.
func previousRelease(ctx context.Context, root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, ".ci", "previous"))
	if err != nil {
		return "", err
	}
	commit := strings.TrimSpace(string(text))
	if _, err := run(ctx, root, "git", "cat-file", "-e", commit+"^{commit}"); err != nil {
		return "", fmt.Errorf("the commit %s of .ci/previous %w: %w", commit, errNoHistory, err)
	}
	return commit, nil
}

// build builds all programs into dir. The present ones are those of the tree at present.
func build(ctx context.Context, root, present, dir string) (p programs, err error) {
	commit, err := previousRelease(ctx, root)
	if err != nil {
		return p, err
	}
	old := filepath.Join(dir, "previous")
	if err := errors.Join(os.MkdirAll(old, 0o700), unpack(ctx, root, commit, old)); err != nil {
		return p, fmt.Errorf("the tree of %s: %w", commit, err)
	}
	// The previous release may have an older form of this program, or none.
	if err := errors.Join(
		os.RemoveAll(filepath.Join(old, nodePackage)),
		os.CopyFS(filepath.Join(old, nodePackage), os.DirFS(filepath.Join(root, nodePackage))),
	); err != nil {
		return p, err
	}
	p = programs{filepath.Join(dir, "node-previous"), filepath.Join(dir, "node-present"), filepath.Join(dir, "flotilla")}
	// The tree of the previous release is in another directory each time. Without its path in what is
	// compiled, it is compiled only once.
	for _, b := range []struct{ tree, out, what, trim string }{
		{old, p.previous, nodePackage, "-trimpath=true"},
		{present, p.present, nodePackage, "-trimpath=false"},
		{present, p.command, "cmd/flotilla", "-trimpath=false"},
	} {
		if _, err := run(ctx, b.tree, "go", "build", b.trim, "-o", b.out, "./"+b.what); err != nil {
			return p, err
		}
	}
	return p, nil
}

// unpack writes the tree of a commit to a directory.
func unpack(ctx context.Context, root, commit, to string) error {
	archive := filepath.Join(to, "archive.tar")
	if _, err := run(ctx, root, "git", "archive", "--format=tar", "-o", archive, commit); err != nil {
		return err
	}
	_, err := run(ctx, to, "tar", "xf", archive)
	return errors.Join(err, os.Remove(archive))
}

// run runs a program in a directory and returns what it prints. Its error has that too.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return text, err
}
