package flotilla

import (
	"flag"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// SetClock has the clock of the node that c is for run at that rate: 1.01 is one part in a hundred
// too fast.
func SetClock(c *Config, rate float64) { c.hooks.Rate = rate }

// SetSupports has the node that c is for support that cluster version at most, as a program of an
// earlier release does. 0: that of this program.
func SetSupports(c *Config, version uint64) { c.supports = version }

// long makes tests go through more cases.
var long = flag.Bool("long", false, "go through all cases of large tests and searches")

// Long reports whether tests go through all their cases.
func Long() bool { return *long }

// Cases returns how many cases a test goes through: all with -long, else the usual number, of which
// the race detector gets a third, because it makes tests in virtual time five times slower. The
// test's log says so.
func Cases(t testing.TB, all, usual int) int {
	t.Helper()
	if Long() {
		return all
	}
	if raceDetector && usual < all {
		usual = max(1, usual/3)
	}
	t.Logf("%d in place of %d; -long goes through all cases", usual, all)
	return usual
}

// Some returns all cases with -long, else every step-th one from the first, and a third of these
// for the race detector: see Cases. Then the test's log says so.
func Some[T any](t testing.TB, all []T, step int) []T {
	t.Helper()
	if Long() {
		return all
	}
	if raceDetector {
		step *= 3
	}
	if step == 1 {
		return all
	}
	var some []T
	for i := 0; i < len(all); i += step {
		some = append(some, all[i])
	}
	t.Logf("%d of %d cases; -long goes through all", len(some), len(all))
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

// SkipRace leaves a test to the form without the race detector, because it goes through hours of
// virtual time in which little happens.
func SkipRace(t testing.TB) {
	t.Helper()
	if raceDetector {
		t.Skip("goes through hours of virtual time: it runs without -race")
	}
}

// DataKey returns the ID of the data key that a node seals with.
func DataKey(n *Node) seal.KeyID { return n.store.State().Keys.ID() }

// Offline keeps the certificates of a node off the real network.
func Offline(c *Config) { c.certs = offline }
