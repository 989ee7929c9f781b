package membership

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The pauses double up to the longest one, and begin anew after a long time, or when a voter comes.
func TestOffers(t *testing.T) {
	var o offers
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	there := []string{"a"}
	if !o.areDue(now, there) {
		t.Error("the first offer is not due")
	}
	var pauses []time.Duration
	for i := range 8 {
		if i == 7 {
			now = now.Add(17 * time.Second)
		}
		o.made(now, time.Second, there)
		pause := o.next.Sub(now)
		pauses = append(pauses, pause)
		if o.areDue(now.Add(pause-1), there) || !o.areDue(now.Add(pause), there) {
			t.Errorf("after a pause of %v the next offer is due at another time", pause)
		}
		now = o.next
	}
	want := []time.Duration{1, 2, 4, 8, 16, 16, 16, 1}
	for i := range want {
		want[i] *= time.Second
	}
	if diff := cmp.Diff(want, pauses); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
	o.made(now, time.Second, there)
	if o.areDue(now, nil) || !o.areDue(now, []string{"a", "b"}) {
		t.Error("the next offer is not due when a voter comes, or is when one goes")
	}
	if o.made(now, time.Second, []string{"b"}); o.pause != time.Second {
		t.Errorf("the pause is %v after a voter has come", o.pause)
	}
}
