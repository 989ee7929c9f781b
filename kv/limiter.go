package kv

import (
	"fmt"
	"io/fs"
	"unicode/utf8"

	"github.com/flotilla-ha/flotilla/internal/limits"
)

// Limit is what all nodes together may allow of one key of a [Limiter].
type Limit struct {
	// Rate is how much they may allow in a second. It must be above 0.
	Rate float64

	// Burst is how much they may allow at once after a rest, from 1 to 1,000,000,000. It must be a
	// tenth of Rate at least.
	Burst int
}

// Limiter limits how often something happens, on all nodes together. [Store.Limiter] returns it.
// Its methods are safe for concurrent use. They decide in the memory of this node, without a round
// trip.
//
// # How exact it is
//
// A node may allow one slice of a key before it has asked the leader. A slice is the largest of 1,
// Burst/(2·N) and Rate/10, rounded up, where N is the number of servers of the cluster. It is never
// more than Burst. The leader accepts what a token bucket of Rate and Burst has. So for each key,
// in any time t, all nodes together allow at most
//
//	Rate·t + Burst + N·slice
//
// by the leader's clock. Where AllowN has allowed an n above a slice, that n stands in the place of
// the slice. Faults add to this:
//
//   - Each change of the leader may add one Burst, and so may each time without one. A leader that
//     is cut off may add what Rate allows in two leases, until it notices that.
//   - A node that has no leader, while others have one, adds Rate/N for as long as that lasts.
//
// A node that gets no answer from a leader first uses what is left of its slice. Then it allows
// Rate/N. So a cluster without a leader keeps to the rate. The same is true of a cluster that has
// not the cluster version 2 yet.
//
// A key that is used within the limit is refused only if one node gets more than a slice before the
// leader has answered, which takes a few milliseconds. So give a limit a Burst of several times
// what one client sends to one node at once.
//
// # Memory
//
// Nothing of this is stored, and a restart forgets it. Keys that are at rest take no memory. A node
// holds about 65,536 keys in use, and the leader as many. If there are more, some of them begin
// anew, as if they had been at rest.
type Limiter struct{ limiter *limits.Limiter }

// Limiter returns the limiter with that name. Limiters of other buckets, or with other names, count
// for themselves. The error wraps fs.ErrInvalid if the limit or a name is no good. A name is as a
// bucket's.
//
// All nodes should give a limiter the same limit. On one node the limit of the last call counts,
// for all that Limiter has returned for that name. If nodes differ, they still share what there is.
// The larger numbers bound all of them together.
func (s *Store) Limiter(name string, l Limit) (*Limiter, error) {
	err := checkBucket(s.bucket)
	if err == nil && (name == "" || len(name) > MaxBucket || !utf8.ValidString(name)) {
		err = fmt.Errorf("%w: the name of a limiter is UTF-8 text of 1 to %d bytes", fs.ErrInvalid, MaxBucket)
	}
	if err == nil {
		err = limits.Limit(l).Check()
	}
	if err != nil {
		return nil, s.fail("limit", name, err)
	}
	return &Limiter{s.b.cfg.Limits.Limiter(s.bucket, name, limits.Limit(l))}, nil
}

// Allow reports whether one more is within the limit of a key, and counts it if it is. A key is any
// text, such as the address of a client. The empty key is one too.
func (l *Limiter) Allow(key string) bool { return l.limiter.Allow(key, 1) }

// AllowN is Allow for n at once: all or none. It returns false if n is above Limit.Burst, and true
// if n is not above 0. An n above a slice is allowed only when this node owes nothing of the key to
// the leader. If it is refused, a try a moment later may succeed.
func (l *Limiter) AllowN(key string, n int) bool { return l.limiter.Allow(key, n) }
