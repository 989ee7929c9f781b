package lease

import (
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// holdDowns remembers since when this leader has seen each role in hold-down. Only the goroutine of
// Run uses it.
type holdDowns struct {
	timing timing.Timing
	none   *iradix.Tree[*state.Role] // roles of which none is in hold-down
	seen   map[holdDown]time.Time
}

// holdDown is that of a role whose holder's session was ended by the entry began.
type holdDown struct {
	role  string
	began uint64
}

// expired calls expire for each role whose hold-down has expired by this leader's clock, however
// slow that is. It returns when the next one will; zero if none is left.
func (h *holdDowns) expired(s *state.State, now time.Time, expire func(h holdDown, after time.Duration)) (next time.Time) {
	if s.Roles == h.none {
		return time.Time{}
	}
	claims := s.InHoldDown()
	if len(claims) == 0 {
		h.none = s.Roles
	}
	seen := make(map[holdDown]time.Time, len(claims))
	for role, c := range claims {
		key := holdDown{role, c.HoldDown}
		if seen[key] = h.seen[key]; seen[key].IsZero() {
			seen[key] = now
		}
		length := holdDownTime(h.timing, &c)
		if since := now.Sub(seen[key]); since >= length {
			expire(key, since)
		} else if at := seen[key].Add(length); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	h.seen = seen
	return next
}

// forget makes this node see all hold-downs anew when it leads again.
func (h *holdDowns) forget() { h.seen = nil }

// holdDownTime returns how long a leader waits until a role's hold-down has expired. By then the
// kernel of the last holder has ended all that can be seen of the role, whatever the two clocks do
// within their bounds.
func holdDownTime(t timing.Timing, c *state.Claim) time.Duration {
	d := c.HoldDownTime
	d += 2 * d / timing.Drift // by a slow clock; that of a lease is shorter by a hundredth
	if !c.Expired {
		d += t.Grant()
	}
	return d + d/timing.Drift
}
