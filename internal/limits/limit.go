package limits

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math"
)

const (
	// MaxBurst bounds Limit.Burst.
	MaxBurst = 1_000_000_000

	// MaxName bounds the name of a limiter and that of its bucket, in bytes.
	MaxName = 64

	// leastBurst is what part of its rate for a second a limit has as its burst at least. In so much
	// time the slowest node has settled with the leader. A smaller bucket would be full before.
	leastBurst = 10

	maxKey = 64 // bytes of a key that is kept as it is
)

// Limit is what all nodes together may allow of a key.
type Limit struct {
	// Rate is how much they may allow in a second.
	Rate float64

	// Burst is how much they may allow at once after a rest, from 1 to MaxBurst and at least a tenth
	// of Rate.
	Burst int
}

// Check returns an error that wraps fs.ErrInvalid if the limit is no good.
func (l Limit) Check() error {
	switch {
	case !(l.Rate > 0) || math.IsInf(l.Rate, 0): // nor is what is not a number
		return fmt.Errorf("%w: Limit.Rate is %v; it must be above 0", fs.ErrInvalid, l.Rate)
	case l.Burst < 1 || l.Burst > MaxBurst:
		return fmt.Errorf("%w: Limit.Burst is %d; it must be from 1 to %d", fs.ErrInvalid, l.Burst, MaxBurst)
	case float64(l.Burst) < l.Rate/leastBurst:
		return fmt.Errorf("%w: Limit.Burst is %d; for a Limit.Rate of %v it must be %.0f at least", fs.ErrInvalid, l.Burst, l.Rate, math.Ceil(l.Rate/leastBurst))
	}
	return nil
}

// slice returns how much a node of so many may owe.
func (l Limit) slice(servers int) float64 {
	share := math.Ceil(float64(l.Burst) / float64(2*servers))
	return min(float64(l.Burst), max(1, share, math.Ceil(l.Rate/leastBurst)))
}

// shorten returns a key in the form in which it is kept and sent. A long key becomes its hash,
// which is longer than any key that stays as it is.
func shorten(key string) string {
	if len(key) <= maxKey {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return "#" + hex.EncodeToString(sum[:])
}
