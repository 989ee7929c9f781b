package limits

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	maxWait   = time.Second            // the longest Answer.Wait
	claimTime = 100 * time.Millisecond // how long a node that was left short may be late to ask again
)

// ledger has the buckets of a leader. The zero value is ready.
type ledger struct {
	mu      sync.Mutex
	term    uint64 // the term of the buckets
	buckets map[account]*bucket
}

// account names a bucket.
type account struct{ bucket, name, key string }

// bucket is a token bucket.
type bucket struct {
	limit  Limit
	tokens float64
	at     time.Duration // when it had so many
	short  []claim
}

// claim is a node that was left short, and until when it counts as one that asks again.
type claim struct {
	node  string
	until time.Duration
}

// answer answers a request in a term. fresh says that there was no bucket before.
func (l *ledger) answer(term uint64, node string, ask Request, now time.Duration) (r Reply, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term > l.term {
		l.term, l.buckets = term, make(map[account]*bucket)
	}
	fresh = len(l.buckets) == 0
	for _, o := range ask.Limiters {
		for _, d := range o.Debts {
			b := l.bucket(account{o.Bucket, o.Name, d.Key}, o.Limit, now)
			r.Answers = append(r.Answers, b.accept(node, d.Owed, o.Limit, now))
		}
	}
	return r, fresh
}

// bucket returns a bucket, which is full if it is new. The caller holds mu.
func (l *ledger) bucket(a account, limit Limit, now time.Duration) *bucket {
	b := l.buckets[a]
	if b != nil {
		return b
	}
	if len(l.buckets) >= maxKeys {
		l.makeRoom(now)
	}
	b = &bucket{limit: limit, tokens: float64(limit.Burst), at: now}
	l.buckets[a] = b
	return b
}

// makeRoom forgets the bucket of some that is full, or is so the soonest. The caller holds mu.
func (l *ledger) makeRoom(now time.Duration) {
	var first account
	var least float64
	seen := 0
	for a, b := range l.buckets {
		b.fill(now)
		if left := b.left(); seen == 0 || left < least {
			first, least = a, left
		}
		if seen++; seen == sample {
			break
		}
	}
	delete(l.buckets, first)
}

// isEmpty reports whether there is no bucket.
func (l *ledger) isEmpty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.buckets) == 0
}

// sweep forgets full buckets, or all of them if this node does not lead.
func (l *ledger) sweep(leads bool, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !leads {
		clear(l.buckets)
	}
	for a, b := range l.buckets {
		if b.fill(now); b.left() == 0 {
			delete(l.buckets, a)
		}
	}
}

// fill adds the tokens of the time that has passed.
func (b *bucket) fill(now time.Duration) {
	if now > b.at {
		b.tokens = min(float64(b.limit.Burst), b.tokens+b.limit.Rate*(now-b.at).Seconds())
		b.at = now
	}
}

// left returns in how many seconds the bucket is full.
func (b *bucket) left() float64 { return (float64(b.limit.Burst) - b.tokens) / b.limit.Rate }

// accept accepts as much of a node's debt as there are tokens. If other nodes were left short and
// are about to ask again, it leaves their shares. From now on the bucket has the limit of this
// node.
func (b *bucket) accept(node string, owed uint64, limit Limit, now time.Duration) Answer {
	b.fill(now)
	b.limit, b.tokens = limit, min(b.tokens, float64(limit.Burst))
	b.short = slices.DeleteFunc(b.short, func(c claim) bool { return c.node == node || c.until < now })
	whole := math.Floor(b.tokens)
	share := max(1, math.Floor(b.tokens/float64(1+len(b.short))))
	accepted := min(float64(owed), whole, share)
	b.tokens -= accepted
	a := Answer{Accepted: uint64(accepted)}
	if a.Accepted < owed {
		a.Wait = span((1-b.tokens)/b.limit.Rate, 0, maxWait)
		a.Wait = (a.Wait + time.Millisecond - 1).Truncate(time.Millisecond)
		b.short = append(b.short, claim{node, now + max(a.Wait, pause) + claimTime})
	}
	return a
}
