package meter

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Counter counts. The zero Counter is ready. Its methods are safe for concurrent use.
type Counter struct{ n atomic.Uint64 }

// Inc counts one.
func (c *Counter) Inc() { c.n.Add(1) }

// Add counts n.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Load returns the count.
func (c *Counter) Load() uint64 { return c.n.Load() }

// maxLabels bounds how many counters a Counters has.
const maxLabels = 100

// Counters are counters by the values of some labels. The zero Counters is ready. Its methods are
// safe for concurrent use.
type Counters struct {
	all   sync.Map // *Counter by the joined values
	count atomic.Int64
}

// separator joins the values of labels. It is no UTF-8, so no value has it.
const separator = "\xff"

// Inc counts one for the values of the labels, in their order.
func (c *Counters) Inc(values ...string) { c.Of(values...).Inc() }

// Of returns the counter for the values of the labels, in their order. When there are too many, it
// returns one whose values are all "other".
func (c *Counters) Of(values ...string) *Counter {
	key := keyOf(values)
	if found, ok := c.all.Load(key); ok {
		return found.(*Counter)
	}
	if c.count.Load() >= maxLabels {
		key = strings.Join(slices.Repeat([]string{"other"}, len(values)), separator)
	}
	found, loaded := c.all.LoadOrStore(key, new(Counter))
	if !loaded {
		c.count.Add(1)
	}
	return found.(*Counter)
}

// keyOf joins values. A byte that is no UTF-8 could be taken for the separator.
func keyOf(values []string) string {
	for i, v := range values {
		if !utf8.ValidString(v) {
			values = slices.Clone(values)
			for j := i; j < len(values); j++ {
				values[j] = strings.ToValidUTF8(values[j], "\uFFFD")
			}
			break
		}
	}
	return strings.Join(values, separator)
}

// Labelled is a count with the values of its labels.
type Labelled struct {
	Values []string // of the labels, in their order
	Count  uint64   // how often they were counted
}

// List returns all counts, in the order of their values.
func (c *Counters) List() []Labelled {
	var out []Labelled
	c.all.Range(func(key, counter any) bool {
		out = append(out, Labelled{strings.Split(key.(string), separator), counter.(*Counter).Load()})
		return true
	})
	slices.SortFunc(out, func(a, b Labelled) int { return slices.Compare(a.Values, b.Values) })
	return out
}

// bounds returns the upper bounds of a Histogram's buckets. They fit a write to memory, a round
// trip, a write to a slow disk, and an order that takes minutes.
func bounds() [16]time.Duration {
	return [16]time.Duration{
		100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
		10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
		100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 5 * time.Second, 30 * time.Second, 5 * time.Minute,
	}
}

// Histogram counts lengths of time in buckets. The zero Histogram is ready. Its methods are safe
// for concurrent use.
type Histogram struct {
	counts [17]atomic.Uint64 // by bucket; the last is for what exceeds all bounds
	sum    atomic.Int64      // nanoseconds
}

// Observe counts a length of time. A negative one counts as zero.
func (h *Histogram) Observe(d time.Duration) {
	d = max(0, d)
	i := 0
	for _, bound := range bounds() {
		if d <= bound {
			break
		}
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Bucket is how many observed lengths of time are at most Bound.
type Bucket struct {
	Bound time.Duration // the longest of them
	Count uint64        // of those, the shorter buckets' included
}

// Observed is what a Histogram has counted.
type Observed struct {
	Buckets []Bucket // by Bound, without that of everything
	Count   uint64   // of all
	Sum     time.Duration
}

// Load returns what was counted. A length of time that is observed meanwhile may be missing in
// Sum.
func (h *Histogram) Load() Observed {
	var out Observed
	for i, bound := range bounds() {
		out.Count += h.counts[i].Load()
		out.Buckets = append(out.Buckets, Bucket{bound, out.Count})
	}
	out.Count += h.counts[len(h.counts)-1].Load()
	out.Sum = time.Duration(h.sum.Load())
	return out
}

// Gauge is a number that rises and falls. The zero Gauge is ready. Its methods are safe for
// concurrent use.
type Gauge struct{ n atomic.Int64 }

// Add changes the number by n.
func (g *Gauge) Add(n int64) { g.n.Add(n) }

// Load returns the number.
func (g *Gauge) Load() int64 { return g.n.Load() }

// Moment is a time, zero at first. The zero Moment is ready. Its methods are safe for concurrent
// use.
type Moment struct{ nanoseconds atomic.Int64 }

// Set sets the time.
func (m *Moment) Set(t time.Time) { m.nanoseconds.Store(t.UnixNano()) }

// Load returns the time, zero if it was never set.
func (m *Moment) Load() time.Time {
	if n := m.nanoseconds.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}
