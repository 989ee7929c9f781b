package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
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
	bins map[string]string // test binaries by package

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
	var proofs []proof
	for _, m := range all {
		if p := m.needs(); !slices.Contains(proofs, p) {
			proofs = append(proofs, p)
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, r.jobs)
	for _, p := range proofs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			why := r.passes(p)
			r.mu.Lock()
			defer r.mu.Unlock()
			outcomes[p] = why
		})
	}
	wg.Wait()
	return outcomes, r.ctx.Err()
}

// passes runs a test without any mutant, and returns why it proves nothing; empty: it does.
func (r *runner) passes(p proof) (why string) {
	top, _, _ := strings.Cut(p.test, "/")
	for range attempts {
		out, err := r.test(nil, p.pkg, pattern(p.test), !p.long, true)
		switch {
		case err != nil:
			why = "the test fails without the mutant: " + strings.Join(failed(out), " ")
			continue
		case strings.Contains(out, "--- SKIP: "+top+" "):
			return noRun
		case !strings.Contains(out, "--- PASS: "+top+" "):
			return "there is no such test"
		}
		return ""
	}
	return why
}

func newRunner(ctx context.Context, jobs int) (*runner, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mutants")
	return &runner{ctx: ctx, root: root, dir: dir, jobs: max(1, jobs), bins: make(map[string]string), counts: make(map[fate]int)}, err
}

func (r *runner) close() error { return os.RemoveAll(r.dir) }

// run tries all mutants. First the tests must pass without any.
func (r *runner) run(all []*mutant) error {
	begun := time.Now()
	if err := r.compile(all); err != nil {
		return err
	}
	outcomes, err := r.clean(all)
	if err != nil {
		return err
	}
	fmt.Printf("the tests pass without any mutant, %.0f s\n", time.Since(begun).Seconds())
	var wg sync.WaitGroup
	slots := make(chan struct{}, r.jobs)
	for _, m := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			start := time.Now()
			f, why := broken, outcomes[m.needs()]
			switch why {
			case "":
				f, why = r.try(m)
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
	if err := r.compile(all); err != nil {
		return err
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, r.jobs)
	for _, m := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out, _ := r.test(m, m.where(), tests, !m.long, false)
			r.mu.Lock()
			defer r.mu.Unlock()
			fmt.Printf("%s %s, named %s: %s\n", m.name(), m.in, m.test, strings.Join(failed(out), " "))
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
func (r *runner) try(m *mutant) (fate, string) {
	out, err := r.test(m, m.where(), pattern(m.test), !m.long, true)
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

// compile makes the test binaries, with all mutants in them.
func (r *runner) compile(all []*mutant) error {
	begun := time.Now()
	files := make(map[string][]*mutant)
	for _, m := range all {
		files[m.file] = append(files[m.file], m)
	}
	replace := make(map[string]string)
	put := func(path, text string) error {
		path = filepath.Join(r.root, filepath.FromSlash(path))
		from := replace[path]
		if from == "" {
			from = filepath.Join(r.dir, fmt.Sprintf("file%d.go", len(replace)))
			replace[path] = from
		}
		return os.WriteFile(from, []byte(text), 0o600)
	}
	for file, mutants := range files {
		text, err := os.ReadFile(filepath.Join(r.root, filepath.FromSlash(file)))
		if err != nil {
			return err
		}
		grafted, pkg, err := graft(file, string(text), mutants)
		if err == nil {
			err = put(file, grafted)
		}
		if err == nil {
			err = put(path.Join(path.Dir(file), "mutants_switch.go"), switchFile(pkg))
		}
		if err != nil {
			return err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	overlay := filepath.Join(r.dir, "overlay.json")
	if err = errors.Join(err, os.WriteFile(overlay, b, 0o600)); err != nil {
		return err
	}
	for _, m := range all {
		pkg := m.where()
		if r.bins[pkg] != "" {
			continue
		}
		bin := filepath.Join(r.dir, fmt.Sprintf("%d.test", len(r.bins)))
		out, err := r.command(r.root, nil, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-gcflags=-e", "-overlay", overlay, "-o", bin, pkg)
		if err != nil {
			return fmt.Errorf("a mutant does not compile: %w\n%s", err, out)
		}
		r.bins[pkg] = bin
	}
	fmt.Printf("%d mutants compile, %.0f s\n", len(all), time.Since(begun).Seconds())
	return nil
}

// test runs tests of a package as go test does: where the package is. Without a mutant none is in force.
func (r *runner) test(m *mutant, pkg, tests string, short, stop bool) (out string, err error) {
	args := []string{"-test.v", "-test.timeout=" + testTimeout.String(), "-test.run=" + tests}
	if short {
		args = append(args, "-test.short")
	}
	if stop {
		args = append(args, "-test.failfast")
	}
	return r.command(filepath.Join(r.root, filepath.FromSlash(pkg)), m, r.bins[pkg], args...)
}

func (r *runner) command(dir string, m *mutant, name string, args ...string) (out string, err error) {
	var b bytes.Buffer
	cmd := exec.CommandContext(r.ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &b, &b
	id := 0 // none
	if m != nil {
		id = m.id
	}
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", variable, id))
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
