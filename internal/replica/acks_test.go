package replica

import (
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/timing"
)

// A member is late if it has come no closer for a while to what is wanted of it.
func TestLateMembers(t *testing.T) {
	now, lengths := time.Now(), timing.Of(600*time.Millisecond)
	for _, test := range []struct {
		name            string
		applied, wanted uint64
		stuck           time.Duration
		late            bool
	}{
		{"nothing is wanted", 0, 0, time.Hour, false},
		{"it has all", 5, 5, time.Hour, false},
		{"it comes closer", 4, 5, 3 * lengths.Lease, false},
		{"it comes no closer", 4, 5, 3*lengths.Lease + 1, true},
	} {
		a := &Acks{timing: lengths, applied: map[string]uint64{"m": test.applied}, wanted: map[string]uint64{"m": test.wanted}, stuck: map[string]time.Time{"m": now.Add(-test.stuck)}}
		if got := a.Late("m", now); got != test.late {
			t.Errorf("%s: late %v, want %v", test.name, got, test.late)
		}
	}
}
