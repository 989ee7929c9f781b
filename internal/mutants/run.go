package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// attempts bounds the runs of a test without any mutant. The machine may be busy with other things.
const attempts = 3

// runner tries mutants, several at once.
type runner struct {
	tests *binaries
	jobs  int

	mu     sync.Mutex
	done   int
	counts map[result]int
	faults []string // mutants that were not killed
}

// result is what became of a mutant.
type result string

const (
	killed   result = "killed"
	survived result = "SURVIVED"
	broken   result = "BROKEN" // the row proves nothing
	skipped  result = "skipped"
)

// noRun is the reason why a test proves nothing here that may prove something on another machine.
const noRun = "the test is skipped here"

// testRun is a test as one mutant needs it.
type testRun struct {
	pkg, test string
}

func (m *mutant) needs() testRun { return testRun{m.where(), m.test} }

func newRunner(tests *binaries, jobs int) *runner {
	return &runner{tests: tests, jobs: max(1, jobs), counts: make(map[result]int)}
}

// run tries all mutants. First the tests must pass without any.
func (r *runner) run(ctx context.Context, all []*mutant) error {
	begun := time.Now()
	reasons := r.clean(ctx, all)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	fmt.Printf("the tests pass without any mutant, %.0f s\n", time.Since(begun).Seconds())
	parallel(r.jobs, all, func(m *mutant) {
		start := time.Now()
		got, why := broken, reasons[m.needs()]
		switch why {
		case "":
			got, why = r.try(ctx, m)
		case noRun:
			got = skipped
		}
		r.report(m, got, why, time.Since(start), len(all))
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	fmt.Printf("\n%d of %d mutants killed in %.0f s", r.counts[killed], len(all), time.Since(begun).Seconds())
	if n := r.counts[skipped]; n > 0 {
		fmt.Printf("; the tests of %d need root and Linux, or a program that is missing here", n)
	}
	fmt.Println()
	if len(r.faults) > 0 {
		return fmt.Errorf("%d mutants were not killed:\n%s", len(r.faults), strings.Join(r.faults, "\n"))
	}
	return nil
}

// clean runs the tests of all mutants without any mutant. It returns why tests prove nothing.
func (r *runner) clean(ctx context.Context, all []*mutant) map[testRun]string {
	reasons := make(map[testRun]string)
	var runs []testRun
	for _, m := range all {
		t := m.needs()
		if _, ok := reasons[t]; !ok {
			reasons[t] = ""
			runs = append(runs, t)
		}
	}
	parallel(r.jobs, runs, func(t testRun) {
		why := r.passes(ctx, t)
		r.mu.Lock()
		defer r.mu.Unlock()
		reasons[t] = why
	})
	return reasons
}

// passes runs a test without any mutant. It returns why the test proves nothing, or an empty
// string.
func (r *runner) passes(ctx context.Context, t testRun) (why string) {
	top, _, _ := strings.Cut(t.test, "/")
	for range attempts {
		out, err := r.tests.test(ctx, noMutant, t.pkg, pattern(t.test), "-test.failfast")
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

// try runs the test of a mutant with the mutant in force.
func (r *runner) try(ctx context.Context, m *mutant) (got result, why string) {
	out, err := r.tests.test(ctx, m.id, m.where(), pattern(m.test), "-test.failfast")
	hung := strings.Contains(out, "panic: test timed out")
	switch {
	case ctx.Err() != nil:
		return broken, ctx.Err().Error()
	case err == nil:
		return survived, ""
	case hung && !m.hangs:
		return broken, "the test failed by its time-out only"
	case len(failed(out)) == 0:
		return broken, "the test ended in another way: " + err.Error() + ": " + firstLines(out)
	}
	return killed, ""
}

// report counts and prints what became of a mutant.
func (r *runner) report(m *mutant, got result, why string, took time.Duration, of int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	r.counts[got]++
	line := fmt.Sprintf("%-8s %-32s %s (%s)", got, m.name(), m.test, m.guard)
	fmt.Printf("[%d/%d] %5.1f s %s\n", r.done, of, took.Seconds(), line)
	if why != "" {
		fmt.Println("\t" + why)
	}
	if got == survived || got == broken {
		r.faults = append(r.faults, line)
	}
}

// find prints for each mutant which tests notice it.
func (r *runner) find(ctx context.Context, all []*mutant, tests string) error {
	parallel(r.jobs, all, func(m *mutant) {
		// The tests that fail are the result.
		out, _ := r.tests.test(ctx, m.id, m.where(), tests)
		r.mu.Lock()
		defer r.mu.Unlock()
		fmt.Printf("%s %s, named %s: %s\n", m.name(), m.in, m.test, strings.Join(failed(out), " "))
	})
	return ctx.Err()
}

// parallel calls f for all items, at most so many at once, and waits for the calls.
func parallel[T any](jobs int, items []T, f func(T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, jobs)
	for _, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(item)
		})
	}
	wg.Wait()
}
