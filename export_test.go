package flotilla

import (
	"flag"
	"testing"
)

// SetClock has the clock of the node that c is for run at that rate: 1.01 is one part in a hundred
// too fast.
func SetClock(c *Config, rate float64) { c.rate = rate }

// long makes tests go through more cases.
var long = flag.Bool("long", false, "go through all cases of large tests and searches")

// Long reports whether tests go through all their cases.
func Long() bool { return *long }

// Cases returns how many cases a test goes through: all with -long, else the usual number.
func Cases(all, usual int) int {
	if Long() {
		return all
	}
	return usual
}

// Some returns all cases with -long, else every step-th one from the first.
func Some[T any](all []T, step int) []T {
	if Long() {
		return all
	}
	var some []T
	for i := 0; i < len(all); i += step {
		some = append(some, all[i])
	}
	return some
}

// SkipShort leaves a test out of the short form, because it takes more than 0.1 s.
func SkipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
}

// OnlyLong leaves a test out unless -long is set, because it goes through hours of virtual time.
func OnlyLong(t testing.TB) {
	t.Helper()
	if !Long() {
		t.Skip("goes through hours of virtual time: it runs with -long")
	}
}
