package limits

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
}

// Over the limit, all nodes together get nearly all of the rate and never more than the bound. No
// node is left with little.
func TestOverTheLimit(t *testing.T) {
	slow(t)
	for _, test := range []struct {
		limit Limit
		trip  time.Duration
		time  time.Duration
		rates []float64
	}{
		{Limit{1000, 100}, 200 * time.Microsecond, 10 * time.Second, []float64{1000, 2000, 3000}},
		{Limit{1000, 1000}, 20 * time.Millisecond, 10 * time.Second, []float64{1000, 1000, 1000}},
		{Limit{100, 20}, time.Millisecond, 30 * time.Second, []float64{150, 0, 0}},
		{Limit{10, 1}, time.Millisecond, 60 * time.Second, []float64{100, 0, 0}},
		{Limit{10, 2}, time.Millisecond, 60 * time.Second, []float64{30, 30, 30}},
		{Limit{0.5, 3}, time.Millisecond, 120 * time.Second, []float64{5, 5, 5}},
	} {
		t.Run(fmt.Sprintf("%v by %v", test.limit, test.rates), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, 3, test.limit, 1)
				defer l.end()
				l.trip = test.trip
				u := l.load(test.rates...)
				u.run(test.time)
				u.check()
				if want := 0.9 * test.limit.Rate * test.time.Seconds(); u.total() < want {
					t.Errorf("%v were allowed, want %.0f", u.total(), want)
				}
				for i, rate := range test.rates {
					if share := test.limit.Rate / 3 * test.time.Seconds(); test.limit.Rate >= 100 && rate > 0 && float64(u.allowed[i]) < share/2 {
						t.Errorf("n%d got %d, and a third is %.0f", i, u.allowed[i], share)
					}
				}
			})
		})
	}
}

// Under the limit nothing is refused, and what a node has to say costs few requests.
func TestUnderTheLimit(t *testing.T) {
	slow(t)
	for _, limit := range []Limit{{1000, 300}, {100, 50}, {10, 20}} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, 3, limit, 1)
				defer l.end()
				u := l.load(limit.Rate/5, limit.Rate/5, limit.Rate/5)
				u.run(time.Minute)
				u.check()
				if u.refused > 0 {
					t.Errorf("%d of %v were refused", u.refused, u.total())
				}
				if n := l.requests(); n > 60*2*10 {
					t.Errorf("it took %d requests", n)
				}
			})
		})
	}
}

// Whatever happens to nodes, messages and leaders, the bound holds at every moment.
func TestBoundUnderFaults(t *testing.T) {
	slow(t)
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limit := []Limit{{200, 50}, {1000, 100}, {20, 2}}[seed%3]
				l := newLab(t, 3, limit, seed)
				defer l.end()
				u := l.load(limit.Rate, limit.Rate/2, limit.Rate/4)
				for range 25 {
					i := l.random.IntN(3)
					switch l.random.IntN(6) {
					case 0:
						l.elect(i)
						u.extra += float64(limit.Burst)
					case 1:
						l.elect(-1)
						u.run(time.Duration(l.random.IntN(3000)) * time.Millisecond)
						l.elect(i)
						u.extra += float64(limit.Burst)
					case 2:
						l.setCut(i, true)
					case 3, 4:
						l.setCut(i, false)
					case 5:
						l.mu.Lock()
						l.lossy = !l.lossy
						l.mu.Unlock()
					}
					for i := range u.rates {
						u.rates[i] = limit.Rate * 2 * l.random.Float64() * float64(l.random.IntN(2))
					}
					u.run(time.Duration(200+l.random.IntN(2000)) * time.Millisecond)
				}
				u.check()
			})
		})
	}
}

// Without a leader the nodes keep to the rate together, and do not stop.
func TestWithoutLeader(t *testing.T) {
	slow(t)
	synctest.Test(t, func(t *testing.T) {
		limit := Limit{100, 60}
		l := newLab(t, 3, limit, 1)
		defer l.end()
		l.elect(-1)
		u := l.load(200, 200, 200)
		u.run(30 * time.Second)
		u.check()
		if u.total() < 0.9*30*limit.Rate {
			t.Errorf("%v were allowed", u.total())
		}
		// One node alone does not take the part of the others.
		u = l.load(200, 0, 0)
		u.run(30 * time.Second)
		if most := 30*limit.Rate/3 + limit.slice(3) + 1; u.total() > most {
			t.Errorf("one node has allowed %v, and may %v", u.total(), most)
		}
		// With a leader it gets all of it again.
		l.elect(1)
		u = l.load(200, 0, 0)
		u.run(30 * time.Second)
		if u.total() < 0.9*30*limit.Rate {
			t.Errorf("with a leader, %v were allowed", u.total())
		}
	})
}

// A node that has ended goes on alone.
func TestEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, Limit{10, 2}, 1)
		l.end()
		for i, want := range []bool{true, false} {
			if got := l.limiters[0].Allow("k", 1); got != want {
				t.Errorf("%d: %v", i, got)
			}
		}
		time.Sleep(150 * time.Millisecond)
		if !l.limiters[0].Allow("k", 1) {
			t.Error("it allows nothing any more")
		}
	})
}

// Nothing is sent when nothing is used. What was used is settled within a second or two, also if it
// is little, and then takes no memory: neither here nor at the leader, once its bucket is full.
func TestAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 3, Limit{1, 60}, 1)
		defer l.end()
		time.Sleep(time.Minute)
		if l.requests() != 0 {
			t.Errorf("%d requests at rest", l.requests())
		}
		for range 3 {
			l.limiters[1].Allow("k", 1)
		}
		time.Sleep(2 * time.Second)
		if n := l.nodes[1].debts.size.Load(); n != 0 || l.requests() != 1 {
			t.Errorf("%d debts are left after %d requests", n, l.requests())
		}
		if l.nodes[0].ledger.isEmpty() {
			t.Error("the leader has no bucket")
		}
		time.Sleep(4 * time.Second)
		if !l.nodes[0].ledger.isEmpty() {
			t.Error("the leader keeps a full bucket")
		}
		time.Sleep(time.Hour)
		if l.requests() != 1 {
			t.Errorf("%d requests at rest", l.requests())
		}
	})
}

// A node that leads no more forgets its buckets.
func TestFormerLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 3, Limit{0.001, 10}, 1)
		defer l.end()
		l.limiters[1].Allow("k", 5)
		time.Sleep(2 * time.Second)
		if l.nodes[0].ledger.isEmpty() {
			t.Fatal("the leader has no bucket")
		}
		l.elect(1)
		time.Sleep(2 * time.Second)
		if !l.nodes[0].ledger.isEmpty() {
			t.Error("it keeps its buckets")
		}
	})
}

// allowAll tries to take numbers of a key, one after another.
func allowAll(l *Limiter, key string, numbers ...int) (all []bool) {
	for _, n := range numbers {
		all = append(all, l.Allow(key, n))
	}
	return all
}

// AllowN is all or none. More than a slice is allowed to a node that owes nothing, and more than
// the burst never.
func TestAllowN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 3, Limit{1, 60}, 1) // a slice is 10
		defer l.end()
		for _, test := range []struct {
			key  string
			n    []int
			want []bool
		}{
			{"a", []int{4, 7, 6, 1}, []bool{true, false, true, false}},
			{"b", []int{60, 1}, []bool{true, false}},
			{"c", []int{61, 60}, []bool{false, true}},
			{"d", []int{1, 11, 0, -1}, []bool{true, false, true, true}},
			{strings.Repeat("long", 100), []int{10, 1}, []bool{true, false}},
			{strings.Repeat("long", 100) + "er", []int{10, 1}, []bool{true, false}},
		} {
			if diff := cmp.Diff(test.want, allowAll(l.limiters[2], test.key, test.n...)); diff != "" {
				t.Errorf("%s, %v (-want +got):\n%s", test.key, test.n, diff)
			}
		}
		time.Sleep(10 * time.Millisecond)
		if diff := cmp.Diff([]bool{true}, allowAll(l.limiters[2], "d", 11)); diff != "" {
			t.Errorf("after a moment (-want +got):\n%s", diff)
		}
	})
}

// Nodes with other numbers share what there is. The last limit of a node counts on it, also for
// what it owes.
func TestOtherLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 3, Limit{1, 100}, 1)
		defer l.end()
		less := l.nodes[1].Limiter("b", "l", Limit{1, 30})
		if less != l.limiters[1] {
			t.Error("the limiter is another one")
		}
		if diff := cmp.Diff([]bool{false, true}, allowAll(l.limiters[1], "k", 31, 30)); diff != "" {
			t.Errorf("the node with less (-want +got):\n%s", diff)
		}
		time.Sleep(10 * time.Millisecond)
		l.limiters[2].Allow("k", 100)
		l.nodes[2].Limiter("b", "l", Limit{1, 20}) // less than it owes
		time.Sleep(3 * time.Minute)
		if n := l.nodes[2].debts.size.Load(); n != 0 {
			t.Errorf("%d debts are never settled", n)
		}
	})
}

// Memory is bounded on both sides. What is forgotten is small.
func TestMemory(t *testing.T) {
	slow(t)
	limit := Limit{0.001, 10}
	d, limiter := newDebts(), new(Limiter)
	limiter.limit.Store(&limit)
	now := func() time.Duration { return 1 }
	for i := range 2 * maxKeys {
		d.take(place{limiter, fmt.Sprint(i)}, float64(1+i%5), limit, 1, now)
	}
	held, sum := 0, 0.0
	for i := range d.shards {
		held += len(d.shards[i].all)
		for _, debt := range d.shards[i].all {
			sum += debt.owed
		}
	}
	if held > maxKeys || int64(held) != d.size.Load() || sum/float64(held) < 3.3 {
		t.Errorf("%d debts of %.2f on average, counted as %d", held, sum/float64(held), d.size.Load())
	}
	var l ledger
	for i := range 2 * maxKeys {
		l.answer(1, "n", Request{[]Owing{{Limit: limit, Debts: []Debt{{fmt.Sprint(i), uint64(1 + i%5)}}}}}, 0)
	}
	sum = 0
	for _, b := range l.buckets {
		sum += b.tokens
	}
	if n := len(l.buckets); n > maxKeys || sum/float64(n) > 6.7 {
		t.Errorf("%d buckets of %.2f on average", n, sum/float64(n))
	}
}

// Many debts go in requests of a bounded size, those of a limiter together, and none is forgotten.
func TestManyDebts(t *testing.T) {
	x := New(Config{Servers: func() int { return 1 }})
	a, b := x.Limiter("b", "a", Limit{1, 1}), x.Limiter("b", "b", Limit{1, 1})
	const n = 2*maxAsks + 100
	for i := range n {
		[]*Limiter{a, b}[i%2].Allow(fmt.Sprint(i), 1)
		[]*Limiter{a, b}[i%2].Allow(fmt.Sprint(i), 1) // refused
	}
	found := make(map[string]int)
	for all := x.debts.collect(); len(all) > 0; all = x.debts.collect() {
		ask := requestOf(all)
		if len(ask.Limiters) > 2 || len(all) > maxAsks {
			t.Errorf("a request has %d limiters and %d debts", len(ask.Limiters), len(all))
		}
		for _, o := range ask.Limiters {
			for _, d := range o.Debts {
				found[o.Name+d.Key]++
			}
		}
	}
	if len(found) != n {
		t.Errorf("%d debts were reported", len(found))
	}
	for key, times := range found {
		if times != 1 {
			t.Errorf("%s was reported %d times", key, times)
		}
	}
}

// Only a node that leads and has its lease answers, and it must have had it all the time.
func TestServe(t *testing.T) {
	ask := Request{[]Owing{{"b", "l", Limit{1, 5}, []Debt{{"k", 2}, {"k2", 6}}}}}
	for _, test := range []struct {
		name  string
		terms []uint64
		want  []Answer
		err   error
	}{
		{"it leads", []uint64{3, 3}, []Answer{{2, 0}, {5, time.Second}}, nil},
		{"it does not lead", []uint64{0, 0}, nil, rpc.ErrNotLeader},
		{"it stands still and wakes without its lease", []uint64{3, 0}, nil, rpc.ErrNotLeader},
		{"it leads anew", []uint64{3, 4}, nil, rpc.ErrNotLeader},
	} {
		t.Run(test.name, func(t *testing.T) {
			terms := test.terms
			x := New(Config{Term: func() uint64 {
				term := terms[0]
				terms = terms[1:]
				return term
			}})
			reply, err := x.Serve(t.Context(), "n", ask)
			if diff := cmp.Diff(test.want, reply.Answers); diff != "" || !errors.Is(err, test.err) {
				t.Errorf("%v, want %v (-want +got):\n%s", err, test.err, diff)
			}
		})
	}
}

// A bucket fills at its rate, and shares what it has among the nodes that were left short.
func TestBucket(t *testing.T) {
	limit := Limit{10, 10}
	b := &bucket{limit: limit, tokens: 10}
	for _, step := range []struct {
		at   time.Duration
		node string
		owed uint64
		want Answer
	}{
		{0, "a", 4, Answer{4, 0}},
		{0, "b", 10, Answer{6, 100 * time.Millisecond}},
		{50 * time.Millisecond, "a", 1, Answer{0, 50 * time.Millisecond}},
		{200 * time.Millisecond, "b", 4, Answer{1, 0}}, // a may come
		{200 * time.Millisecond, "a", 1, Answer{1, 0}},
		{time.Hour, "b", 11, Answer{10, 100 * time.Millisecond}},
		{2 * time.Hour, "b", 10, Answer{10, 0}},
	} {
		if diff := cmp.Diff(step.want, b.accept(step.node, step.owed, limit, step.at)); diff != "" {
			t.Errorf("%v, %s owes %d (-want +got):\n%s", step.at, step.node, step.owed, diff)
		}
	}
}

// The buckets of a term are not those of the next one.
func TestTerms(t *testing.T) {
	var l ledger
	ask := Request{[]Owing{{"b", "l", Limit{1, 5}, []Debt{{"k", 5}}}}}
	for _, step := range []struct{ term, accepted uint64 }{{1, 5}, {1, 0}, {2, 5}, {2, 0}} {
		if r, _ := l.answer(step.term, "n", ask, 0); r.Answers[0].Accepted != step.accepted {
			t.Errorf("term %d: %d accepted, want %d", step.term, r.Answers[0].Accepted, step.accepted)
		}
	}
}

// A reply with another number of answers is none.
func TestWrongReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, Limit{1, 5}, 1)
		defer l.end()
		for _, err := range []error{errTest, errCount} {
			l.nodes[0].cfg.Leader = func() string { return "other" }
			l.nodes[0].cfg.Call = func(context.Context, string, Request) (Reply, error) {
				if err == errTest {
					return Reply{}, err
				}
				return Reply{}, nil
			}
			if got := l.nodes[0].report(t.Context(), []owing{{place{l.limiters[0], "k"}, 1}}); !errors.Is(got, err) || l.alone() != 1 {
				t.Errorf("%v, want %v", got, err)
			}
		}
	})
}

func TestLimit(t *testing.T) {
	for _, test := range []struct {
		limit Limit
		says  string
		slice float64 // of three servers
	}{
		{Limit{1, 1}, "", 1},
		{Limit{10, 1}, "", 1},
		{Limit{1, 60}, "", 10},
		{Limit{1, 61}, "", 11},
		{Limit{1000, 100}, "", 100},
		{Limit{1000, 6000}, "", 1000},
		{Limit{1e10, MaxBurst}, "", MaxBurst},
		{Limit{0, 1}, "Limit.Rate is 0", 0},
		{Limit{-1, 1}, "Limit.Rate is -1", 0},
		{Limit{math.NaN(), 1}, "Limit.Rate is NaN", 0},
		{Limit{math.Inf(1), MaxBurst}, "Limit.Rate is +Inf", 0},
		{Limit{1, 0}, "Limit.Burst is 0", 0},
		{Limit{1, MaxBurst + 1}, "Limit.Burst is 1000000001", 0},
		{Limit{101, 10}, "for a Limit.Rate of 101 it must be 11 at least", 0},
	} {
		err := test.limit.Check()
		if test.says == "" {
			if err != nil || test.limit.slice(3) != test.slice {
				t.Errorf("%v: %v, the slice is %v, want %v", test.limit, err, test.limit.slice(3), test.slice)
			}
		} else if !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v: %v, want %s", test.limit, err, test.says)
		}
	}
}

// Decisions at the same time, of many keys and one, lose nothing.
func TestConcurrent(t *testing.T) {
	x := New(Config{Servers: func() int { return 1 }})
	l := x.Limiter("b", "l", Limit{1, 200})
	var all sync.WaitGroup
	var mu sync.Mutex
	allowed := 0
	for range 8 {
		all.Go(func() {
			mine := 0
			for i := range 100 {
				if l.Allow("k", 1) {
					mine++
				}
				l.Allow(fmt.Sprint(i), 1)
			}
			mu.Lock()
			defer mu.Unlock()
			allowed += mine
		})
	}
	all.Wait()
	if allowed != 100 {
		t.Errorf("%d were allowed, and a slice is 100", allowed)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(Request{[]Owing{{"b", "l", Limit{1.5, 5}, []Debt{{"k", 2}, {"", 5}}}, {"b", "m", Limit{1, 1}, nil}}}.Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeRequest(b)
		if err != nil {
			if !errors.Is(err, codec.ErrMalformed) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		if again, err := DecodeRequest(m.Encode()); err != nil || !cmp.Equal(again, m) {
			t.Errorf("%+v is read back as %+v: %v", m, again, err)
		}
		var l ledger
		r, _ := l.answer(1, "n", m, 0)
		if again, err := DecodeReply(r.Encode()); err != nil || !cmp.Equal(again, r) {
			t.Errorf("the answer %+v is read back as %+v: %v", r, again, err)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add(Reply{[]Answer{{7, 0}, {0, time.Second}}}.Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeReply(b)
		if err != nil {
			if !errors.Is(err, codec.ErrMalformed) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		if again, err := DecodeReply(m.Encode()); err != nil || !cmp.Equal(again, m) {
			t.Errorf("%+v is read back as %+v: %v", m, again, err)
		}
	})
}

// BenchmarkAllow measures a decision: of one key that is allowed, of one that is refused, and of
// many keys on all processors.
func BenchmarkAllow(b *testing.B) {
	limiter := func(limit Limit) *Limiter {
		return New(Config{Servers: func() int { return 3 }}).Limiter("b", "l", limit)
	}
	b.Run("allowed", func(b *testing.B) {
		l := limiter(Limit{1, MaxBurst})
		for b.Loop() {
			l.Allow("192.0.2.1", 1)
		}
	})
	b.Run("refused", func(b *testing.B) {
		l := limiter(Limit{1, 1})
		for b.Loop() {
			l.Allow("192.0.2.1", 1)
		}
	})
	b.Run("many keys", func(b *testing.B) {
		l := limiter(Limit{1, MaxBurst})
		keys := make([]string, 10_000)
		for i := range keys {
			keys[i] = fmt.Sprint("192.0.", i/256, ".", i%256)
		}
		b.RunParallel(func(p *testing.PB) {
			for i := 0; p.Next(); i++ {
				l.Allow(keys[i%len(keys)], 1)
			}
		})
	})
}
