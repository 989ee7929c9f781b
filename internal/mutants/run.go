package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	testTimeout = 3 * time.Minute // for the test of one mutant
	attempts    = 3               // at a test without any mutant, on a machine that does something else as well
)

// runner compiles and runs tests.
type runner struct {
	ctx  context.Context
	root string // of the repository
	dir  string // for what is compiled
	jobs int

	mu     sync.Mutex
	done   int
	counts map[fate]int
	faults []string // what fails the run
}

// fate is what became of a mutant.
type fate string

const (
	killed   fate = "killed"
	survived fate = "SURVIVED"
	broken   fate = "BROKEN" // the row is: it proves nothing
	skipped  fate = "skipped"

	noRun = "the test is skipped here"
)

// proof is a test as one mutant needs it.
type proof struct {
	pkg, test string
	long      bool
}

func (m *mutant) needs() proof { return proof{m.where(), m.test, m.long} }

// clean runs the tests of all mutants without any. It returns what is wrong with those that prove nothing.
func (r *runner) clean(all []*mutant) (map[proof]string, error) {
	outcomes := make(map[proof]string)
	bins := make(map[string]string)
	for _, m := range all {
		p := m.needs()
		if _, done := outcomes[p]; done {
			continue
		}
		if bins[p.pkg] == "" {
			bin, out, err := r.compile(fmt.Sprint("clean", len(bins)), p.pkg, "")
			if err != nil {
				return nil, fmt.Errorf("%s does not compile: %w\n%s", p.pkg, err, out)
			}
			bins[p.pkg] = bin
		}
		top, _, _ := strings.Cut(p.test, "/")
		for range attempts {
			out, err := r.test(bins[p.pkg], p.pkg, pattern(p.test), !p.long, true)
			switch {
			case r.ctx.Err() != nil:
				return nil, r.ctx.Err()
			case err != nil:
				outcomes[p] = "the test fails without the mutant"
				fmt.Printf("%s %s fails without any mutant:\n%s\n", p.pkg, p.test, out)
				continue
			case strings.Contains(out, "--- SKIP: "+top+" "):
				outcomes[p] = noRun
			case !strings.Contains(out, "--- PASS: "+top+" "):
				outcomes[p] = "there is no such test"
			default:
				outcomes[p] = ""
			}
			break
		}
	}
	return outcomes, nil
}

func newRunner(ctx context.Context, jobs int) (*runner, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mutants")
	return &runner{ctx: ctx, root: root, dir: dir, jobs: max(1, jobs), counts: make(map[fate]int)}, err
}

func (r *runner) close() error { return os.RemoveAll(r.dir) }

// run tries all mutants. First the tests must pass without any.
func (r *runner) run(all []*mutant) error {
	begun := time.Now()
	outcomes, err := r.clean(all)
	if err != nil {
		return err
	}
	fmt.Printf("the tests pass without any mutant, %.0f s\n", time.Since(begun).Seconds())
	var wg sync.WaitGroup
	slots := make(chan struct{}, r.jobs)
	for i, m := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			start := time.Now()
			f, why := broken, outcomes[m.needs()]
			switch why {
			case "":
				f, why = r.try(fmt.Sprint(i), m)
			case noRun:
				f = skipped
			}
			r.report(m, f, why, time.Since(start), len(all))
		})
	}
	wg.Wait()
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	fmt.Printf("\n%d of %d mutants killed in %.0f s", r.counts[killed], len(all), time.Since(begun).Seconds())
	if n := r.counts[skipped]; n > 0 {
		fmt.Printf("; of %d the tests do not run here: they need root and Linux, or a program that is missing", n)
	}
	fmt.Println()
	if len(r.faults) > 0 {
		return fmt.Errorf("%d mutants were not killed:\n%s", len(r.faults), strings.Join(r.faults, "\n"))
	}
	return nil
}

// report prints what became of a mutant.
func (r *runner) report(m *mutant, f fate, why string, took time.Duration, of int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	r.counts[f]++
	line := fmt.Sprintf("%-8s %-32s %s (%s)", f, m.name(), m.test, m.guard)
	fmt.Printf("[%d/%d] %5.1f s %s\n", r.done, of, took.Seconds(), line)
	if why != "" {
		fmt.Println("\t" + why)
	}
	if f == survived || f == broken {
		r.faults = append(r.faults, line)
	}
}

// find says which tests notice each mutant.
func (r *runner) find(all []*mutant, tests string) error {
	var wg sync.WaitGroup
	slots := make(chan struct{}, r.jobs)
	for i, m := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			said := "nothing"
			bin, out, err := r.build(fmt.Sprint(i), m)
			defer os.Remove(bin)
			if err == nil {
				out, _ = r.test(bin, m.where(), tests, !m.long, false)
				said = strings.Join(failed(out), " ")
			} else {
				said = err.Error() + ": " + firstLines(out)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			fmt.Printf("%s %s, named %s: %s\n", m.name(), m.in, m.test, said)
		})
	}
	wg.Wait()
	return r.ctx.Err()
}

// failed returns the tests that have failed, by their output, and whether the process ended with them.
func failed(out string) (names []string) {
	running := ""
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "=== RUN   "); ok {
			running = strings.TrimSpace(name)
		}
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			name, _, _ = strings.Cut(name, " ")
			names = append(names, name)
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			names = append(names, running+" ("+strings.TrimSpace(line)+")")
		}
	}
	return names
}

// try finds out what becomes of a mutant.
func (r *runner) try(name string, m *mutant) (fate, string) {
	bin, out, err := r.build(name, m)
	defer os.Remove(bin)
	if err != nil {
		return broken, "it does not compile: " + firstLines(out)
	}
	out, err = r.test(bin, m.where(), pattern(m.test), !m.long, true)
	hung := strings.Contains(out, "panic: test timed out")
	switch {
	case r.ctx.Err() != nil:
		return broken, r.ctx.Err().Error()
	case err == nil:
		return survived, ""
	case hung && !m.hangs:
		return broken, "the test failed by its time-out only"
	case len(failed(out)) == 0:
		return broken, "the test ended in another way: " + err.Error() + ": " + firstLines(out)
	}
	return killed, ""
}

// build makes the test binary that has a mutant in it.
func (r *runner) build(name string, m *mutant) (bin, out string, err error) {
	file := filepath.Join(r.dir, name+".go")
	overlay := file + ".json"
	b, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(r.root, filepath.FromSlash(m.file)): file}})
	if err = errors.Join(err, os.WriteFile(file, m.content, 0o600), os.WriteFile(overlay, b, 0o600)); err != nil {
		return "", err.Error(), err
	}
	return r.compile(name, m.where(), overlay)
}

// compile makes the test binary of a package.
func (r *runner) compile(name, pkg, overlay string) (bin, out string, err error) {
	bin = filepath.Join(r.dir, name+".test")
	args := []string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", bin}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	out, err = r.command(r.root, "go", append(args, pkg)...)
	return bin, out, err
}

// test runs tests of a binary as go test does: where their package is.
func (r *runner) test(bin, pkg, tests string, short, stop bool) (out string, err error) {
	args := []string{"-test.v", "-test.timeout=" + testTimeout.String(), "-test.run=" + tests}
	if short {
		args = append(args, "-test.short")
	}
	if stop {
		args = append(args, "-test.failfast")
	}
	return r.command(filepath.Join(r.root, filepath.FromSlash(pkg)), bin, args...)
}

func (r *runner) command(dir, name string, args ...string) (out string, err error) {
	var b bytes.Buffer
	cmd := exec.CommandContext(r.ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &b, &b
	cmd.WaitDelay = 10 * time.Second // what a failed test has left running keeps the pipe open
	err = cmd.Run()
	return b.String(), err
}

// pattern returns the value of -run that chooses a test, or a subtest, and no other.
func pattern(test string) string { return "^" + strings.ReplaceAll(test, "/", "$/^") + "$" }

func firstLines(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[:min(6, len(lines))], "\n\t")
}
