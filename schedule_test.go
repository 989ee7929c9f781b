package flotilla_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// scheduled is a test that goes through schedules of faults. Each is drawn from a seed, which is
// its name. Flags choose the schedules: with that seed and one schedule, a failed one runs again.
type scheduled struct {
	schedules *int
	seed      *uint64
	usual     int // schedules of the usual form of the test
	long      int // and of the long one
}

// newScheduled registers the flags of such a test: how many schedules, and the seed of the first.
func newScheduled(schedules, seed string, usual, long int) scheduled {
	return scheduled{
		schedules: flag.Int(schedules, 0, fmt.Sprintf("schedules to go through; 0: %d, with -long %d", usual, long)),
		seed:      flag.Uint64(seed, 0, "the seed of the first schedule of -"+schedules),
		usual:     usual, long: long,
	}
}

// runSchedules calls one for each schedule, in a bubble of its own. stream makes the random numbers
// others than those of another test.
func runSchedules(t *testing.T, s scheduled, stream uint64, one func(t *testing.T, random *rand.Rand)) {
	t.Helper()
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	n := *s.schedules
	if n == 0 {
		n = flotilla.Cases(t, s.long, s.usual)
	}
	for seed := *s.seed; seed < *s.seed+uint64(n); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { one(t, rand.New(rand.NewPCG(seed, stream))) })
		})
	}
}
