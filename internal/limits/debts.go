package limits

import (
	"cmp"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxKeys  = 65_536 // debts of a node, and buckets of a leader
	shards   = 64     // parts of the debts, each with a lock of its own
	perShard = maxKeys / shards
	sample   = 8           // of how many one is chosen to be forgotten
	nothing  = 1e-6        // a debt below this is none
	maxAsks  = 2048        // debts in one request
	reminder = time.Second // the shortest time between two reports of a debt that is not used
)

// debts are what this node owes. Their times are counted from the same moment as those of Limits.
type debts struct {
	seed   maphash.Seed
	shards [shards]shard
	size   atomic.Int64 // number of debts
	alone  atomic.Int64 // since when this node has no leader; 0: it has one

	next int // the shard that collect begins with; only one goroutine calls it
}

// shard is a part of the debts.
type shard struct {
	mu  sync.Mutex
	all map[place]*debt
	due []place // what is to be reported; some of it may be settled
}

// place is what a debt is of.
type place struct {
	limiter *Limiter
	key     string
}

// debt is what this node has allowed of a key and the leader has not accepted yet.
type debt struct {
	owed   float64
	queued bool          // it is in due
	seen   time.Duration // until when it was lessened; see lessen
	asked  time.Duration // when the leader has accepted only a part of it
	wait   time.Duration // how long after that the leader can accept more; 0: it has accepted all
}

// lessen forgives a debt at a rate for the time since the last call, or since a later moment.
func (d *debt) lessen(rate float64, since, now time.Duration) {
	d.owed -= rate * (now - max(d.seen, since)).Seconds()
	d.seen = now
	if d.owed < nothing {
		d.owed = 0
	}
}

func newDebts() *debts {
	d := &debts{seed: maphash.MakeSeed()}
	for i := range d.shards {
		d.shards[i].all = make(map[place]*debt)
	}
	return d
}

func (t *debts) shardOf(key string) *shard { return &t.shards[maphash.String(t.seed, key)%shards] }

// setAlone notes that this node has no leader, or that it has one.
func (t *debts) setAlone(alone bool, now time.Duration) {
	if !alone {
		t.alone.Store(0)
		return
	}
	t.alone.CompareAndSwap(0, int64(max(now, 1)))
}

// take adds n to a debt if the limit allows that on one of so many servers. report says that there
// is something to report that the reporter does not know of.
func (t *debts) take(p place, n float64, limit Limit, servers int, now func() time.Duration) (ok, report bool) {
	slice, alone := limit.slice(servers), time.Duration(t.alone.Load())
	s := t.shardOf(p.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.all[p]
	if d == nil {
		d, report = s.add(t, p)
		if alone > 0 {
			d.seen = now()
		}
	}
	if alone > 0 {
		d.lessen(limit.Rate/float64(servers), alone, now())
	}
	if ok = d.owed+n <= max(slice, n); ok {
		d.owed += n
	}
	switch {
	case d.queued, ok && d.owed <= slice/2:
	case d.wait > 0 && now() < d.asked+d.wait:
	default:
		s.enqueue(p, d)
		report = true
	}
	return ok, report
}

// add adds a debt. If there are too many, the smallest of some is forgiven. The caller holds mu.
func (s *shard) add(t *debts, p place) (d *debt, first bool) {
	if len(s.all) >= perShard {
		var least place
		var owed float64
		seen := 0
		for other, d := range s.all {
			if seen == 0 || d.owed < owed {
				least, owed = other, d.owed
			}
			if seen++; seen == sample {
				break
			}
		}
		s.remove(t, least)
	}
	d = new(debt)
	s.all[p] = d
	return d, t.size.Add(1) == 1
}

// remove removes a debt. The caller holds mu.
func (s *shard) remove(t *debts, p place) {
	delete(s.all, p)
	t.size.Add(-1)
}

// enqueue has a debt reported. The caller holds mu.
func (s *shard) enqueue(p place, d *debt) {
	d.queued = true
	s.due = append(s.due, p)
}

// owing is a debt in a request.
type owing struct {
	place
	owed uint64
}

// collect returns debts that are to be reported, those of a limiter together.
func (t *debts) collect() (all []owing) {
	for range shards {
		s := &t.shards[t.next]
		s.mu.Lock()
		taken := 0
		for _, p := range s.due {
			if len(all) == maxAsks {
				break
			}
			taken++
			if d := s.all[p]; d != nil && d.queued {
				d.queued = false
				if owed := uint64(math.Ceil(d.owed)); owed > 0 {
					all = append(all, owing{p, owed})
				}
			}
		}
		s.due = slices.Delete(s.due, 0, taken)
		s.mu.Unlock()
		if len(all) == maxAsks {
			break
		}
		t.next = (t.next + 1) % shards
	}
	slices.SortStableFunc(all, func(a, b owing) int { return cmp.Compare(a.limiter.number, b.limiter.number) })
	return all
}

// settle takes note of the leader's answers, in the order of what was collected.
func (t *debts) settle(all []owing, answers []Answer, now time.Duration) {
	for i, o := range all {
		s := t.shardOf(o.key)
		s.mu.Lock()
		if d := s.all[o.place]; d != nil {
			d.wait = 0
			if answers[i].Accepted < o.owed {
				d.asked, d.wait = now, max(pause, answers[i].Wait)
			}
			if d.owed -= float64(answers[i].Accepted); d.owed < nothing {
				s.remove(t, o.place)
			}
		}
		s.mu.Unlock()
	}
}

// sweep has all debts reported, also the small ones. It leaves out those of which the leader can
// probably accept nothing yet.
func (t *debts) sweep(servers int, now time.Duration) {
	alone := time.Duration(t.alone.Load())
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for p, d := range s.all {
			limit := p.limiter.limit.Load()
			if alone > 0 {
				d.lessen(limit.Rate/float64(servers), alone, now)
			}
			switch {
			case d.owed == 0:
				s.remove(t, p)
			case !d.queued && (d.wait == 0 || now >= d.asked+span(min(d.owed, float64(limit.Burst))/limit.Rate, reminder, time.Hour)):
				s.enqueue(p, d)
			}
		}
		s.mu.Unlock()
	}
}

// span returns a number of seconds as a time within bounds.
func span(seconds float64, least, most time.Duration) time.Duration {
	if seconds >= most.Seconds() {
		return most
	}
	return max(least, time.Duration(math.Ceil(seconds*float64(time.Second))))
}
