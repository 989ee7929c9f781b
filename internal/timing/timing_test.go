package timing

import (
	"fmt"
	"testing"
	"time"
)

// What the lengths of time must have in common for every lease.
func TestOf(t *testing.T) {
	for _, test := range []struct {
		lease, heartbeat time.Duration
		pause            time.Duration // that a lease outlasts, if only one node stands still
	}{
		{90 * time.Millisecond, 400 * time.Millisecond, 53100 * time.Microsecond},
		{200 * time.Millisecond, 400 * time.Millisecond, 78 * time.Millisecond},
		{600 * time.Millisecond, 1200 * time.Millisecond, 234 * time.Millisecond},
		{3 * time.Second, 6 * time.Second, 1170 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(test.lease), func(t *testing.T) {
			l := Of(test.lease)
			if l.Heartbeat != test.heartbeat {
				t.Errorf("raft's heartbeat timeout is %v", l.Heartbeat)
			}
			answer := l.Renewal() // grants come with the voter's next request
			if l.Urgent() >= l.Lease {
				answer = 0
			}
			if pause := l.Held() - l.Margin() - l.Renewal() - answer; pause != test.pause {
				t.Errorf("a lease outlasts a pause of %v", pause)
			}
			if left := l.Lease - l.Silence() - l.Renewal(); left < l.Lease/5 {
				t.Errorf("the entry of a suspicion has %v before the last grant expires", left)
			}
			if l.Present() < l.Beat()+l.Renewal()+l.Lease/2 || l.Heartbeat < l.Beat()+l.Renewal()+l.Lease/2 {
				t.Errorf("a leader takes a member for gone after %v, between two heartbeats", l.Present())
			}
			if l.Heard() > l.Silence() {
				t.Errorf("a session that is cleared after %v may be suspected again at once", l.Heard())
			}
		})
	}
}
