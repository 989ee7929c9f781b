// Mutants proves that the tests watch the guards. Each row of its tables breaks one guard of the
// code, by one line, and names a test that must fail then. The files stay as they are: the compiler
// is given the broken line with -overlay.
//
//	go run ./internal/mutants                     all of them, some minutes
//	go run ./internal/mutants -only 'role.go'     those whose file, function or test matches
//	go run ./internal/mutants -sample 20          some of them, other ones every day
//	go run ./internal/mutants -markdown           writes the table into TESTING.md
//	go run ./internal/mutants -relocate           makes the rows follow code that has moved
//
// It fails if a mutant survives, if one does not compile, and if a test fails without any mutant.
// Run it in the root of the repository.
//
// A row names a file, a function and an exact line. When you move code, run -relocate. It rewrites
// the tables:
//
//   - a row whose line is in exactly one other production file gets the name of that file;
//   - a row whose line is in a function of another name gets that name;
//   - a row whose test is in another package than its file says so, with of.
//
// It prints each row that it has changed. It also prints each row that it cannot place, with the
// line of the code that is most like its own, and fails if there are any. Those rows need you: a
// line that has changed may have another purpose.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// options are the flags of the command.
type options struct {
	only     string
	sample   int
	seed     uint64
	jobs     int
	find     string
	markdown bool
	relocate bool
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "", "run only mutants whose file, function, test or guard matches this regexp")
	flag.IntVar(&o.sample, "sample", 0, "run only so many mutants, chosen by the seed")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UTC().YearDay()), "of the sample; by default the day of the year")
	flag.IntVar(&o.jobs, "j", 2, "how many mutants to try at once")
	flag.StringVar(&o.find, "find", "", "for a new row: print which of the tests that match this regexp notice a mutant")
	flag.BoolVar(&o.markdown, "markdown", false, "write the table into TESTING.md, and run nothing")
	flag.BoolVar(&o.relocate, "relocate", false, "rewrite the rows of code that has moved, and run nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := start(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		stop()
		os.Exit(1)
	}
}

func start(ctx context.Context, o options) error {
	if o.relocate {
		return relocate(".", filepath.Join("internal", "mutants"), os.Stdout)
	}
	all, err := load(".", table())
	if err != nil {
		return err
	}
	if o.markdown {
		return writeDocument("TESTING.md", all)
	}
	chosen, err := choose(all, o.only, o.sample, o.seed)
	if err != nil {
		return err
	}
	if len(chosen) < len(all) {
		fmt.Printf("%d of %d mutants, seed %d\n", len(chosen), len(all), o.seed)
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	tests, err := compile(ctx, root, dir, chosen)
	if err != nil {
		return err
	}
	r := newRunner(tests, o.jobs)
	if o.find != "" {
		return r.find(ctx, chosen, o.find)
	}
	return r.run(ctx, chosen)
}

// choose returns the mutants to run, in their order.
func choose(all []*mutant, only string, sample int, seed uint64) ([]*mutant, error) {
	re, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	chosen := slices.DeleteFunc(slices.Clone(all), func(m *mutant) bool {
		return !re.MatchString(m.file + " " + m.in + " " + m.test + " " + m.guard)
	})
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no mutant matches %q", only)
	}
	if sample <= 0 || sample >= len(chosen) {
		return chosen, nil
	}
	random := rand.New(rand.NewPCG(seed, 0))
	random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	chosen = chosen[:sample]
	slices.SortFunc(chosen, func(a, b *mutant) int { return a.id - b.id })
	return chosen, nil
}
