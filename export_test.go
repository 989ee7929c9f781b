package flotilla

import "testing"

// SetClock has the clock of the node that c is for run at that rate: 1.01 is one part in a hundred
// too fast.
func SetClock(c *Config, rate float64) { c.rate = rate }

// OrShort returns how many cases a test goes through: all, or fewer in the short form.
func OrShort(all, fewer int) int {
	if testing.Short() {
		return fewer
	}
	return all
}

// SkipShort leaves a test out of the short form, because it goes through hours of virtual time.
func SkipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("goes through hours of virtual time: it runs without -short")
	}
}
