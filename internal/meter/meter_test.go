package meter

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCounter(t *testing.T) {
	var c Counter
	if got := c.Load(); got != 0 {
		t.Errorf("a new counter is at %d", got)
	}
	c.Inc()
	c.Add(41)
	c.Add(0)
	if got := c.Load(); got != 42 {
		t.Errorf("got %d, want 42", got)
	}
}

func TestGauge(t *testing.T) {
	var g Gauge
	g.Add(3)
	g.Add(-5)
	if got := g.Load(); got != -2 {
		t.Errorf("got %d, want -2", got)
	}
}

func TestMoment(t *testing.T) {
	var m Moment
	if got := m.Load(); !got.IsZero() {
		t.Errorf("a new moment is %v", got)
	}
	for _, want := range []time.Time{time.Unix(1, 5), time.Unix(-1, 0), time.Now()} {
		m.Set(want)
		if got := m.Load(); !got.Equal(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// A length of time is in the bucket of the first bound that it does not exceed.
func TestBuckets(t *testing.T) {
	const shortest, longest = 100 * time.Microsecond, 5 * time.Minute
	for _, test := range []struct {
		name   string
		length time.Duration
		bound  time.Duration // of its bucket; 0: it exceeds all
		sum    time.Duration
	}{
		{"zero", 0, shortest, 0},
		{"negative", -time.Hour, shortest, 0},
		{"the most negative", math.MinInt64, shortest, 0},
		{"tiny", 1, shortest, 1},
		{"at the first bound", shortest, shortest, shortest},
		{"behind the first bound", shortest + 1, 250 * time.Microsecond, shortest + 1},
		{"between", 3 * time.Millisecond, 5 * time.Millisecond, 3 * time.Millisecond},
		{"at a bound", time.Second, time.Second, time.Second},
		{"behind that", time.Second + 1, 5 * time.Second, time.Second + 1},
		{"at the last bound", longest, longest, longest},
		{"behind the last bound", longest + 1, 0, longest + 1},
		{"huge", math.MaxInt64, 0, math.MaxInt64},
	} {
		t.Run(test.name, func(t *testing.T) {
			var h Histogram
			h.Observe(test.length)
			want := Observed{Count: 1, Sum: test.sum}
			for _, bound := range bounds() {
				b := Bucket{Bound: bound}
				if test.bound != 0 && bound >= test.bound {
					b.Count = 1
				}
				want.Buckets = append(want.Buckets, b)
			}
			if diff := cmp.Diff(want, h.Load()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A bucket counts all that is at most its bound.
func TestBucketsAdd(t *testing.T) {
	var h Histogram
	var sum time.Duration
	for _, d := range bounds() {
		h.Observe(d)
		sum += d
	}
	got := h.Load()
	for i, b := range got.Buckets {
		if b.Count != uint64(i)+1 || i > 0 && b.Bound <= got.Buckets[i-1].Bound {
			t.Errorf("bucket %d is %+v", i, b)
		}
	}
	if want := uint64(len(got.Buckets)); want == 0 || got.Count != want || got.Sum != sum {
		t.Errorf("%d and %v, want %d and %v", got.Count, got.Sum, want, sum)
	}
}

// The counts are in the order of their values, each of them on its own.
func TestCountersList(t *testing.T) {
	var c Counters
	if got := c.List(); len(got) != 0 {
		t.Errorf("new counters have %v", got)
	}
	for _, values := range [][]string{{"b", "x"}, {"a", "y"}, {"b", "x"}, {"a", ""}, {"", "ay"}, {"a", "x"}} {
		c.Inc(values...)
	}
	c.Of("a", "x").Add(9)
	want := []Labelled{
		{[]string{"", "ay"}, 1}, {[]string{"a", ""}, 1}, {[]string{"a", "x"}, 10}, {[]string{"a", "y"}, 1}, {[]string{"b", "x"}, 2},
	}
	if diff := cmp.Diff(want, c.List()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// New labels cannot fill the memory. Labels that are known are still counted.
func TestCountersAreBounded(t *testing.T) {
	var c Counters
	for i := range 10 * maxLabels {
		c.Inc(fmt.Sprint(i), "peer")
	}
	c.Inc("0", "peer")
	all := c.List()
	if len(all) != maxLabels+1 {
		t.Errorf("there are %d counters", len(all))
	}
	if got := c.Of("0", "peer").Load(); got != 2 {
		t.Errorf("the first is at %d, want 2", got)
	}
	if got := c.Of("other", "other").Load(); got != 9*maxLabels {
		t.Errorf("%d others, want %d", got, 9*maxLabels)
	}
}

// Any goroutine may count, and read meanwhile. Nothing is lost.
func TestConcurrently(t *testing.T) {
	const goroutines, each = 8, 1000
	var (
		all      sync.WaitGroup
		counter  Counter
		counters Counters
		gauge    Gauge
		h        Histogram
		moment   Moment
	)
	now := time.Now()
	for g := range goroutines {
		all.Go(func() {
			for i := range each {
				counter.Inc()
				counters.Inc(fmt.Sprint(i%20), "x")
				gauge.Add(int64(1 - 2*(g%2)))
				h.Observe(time.Duration(i) * time.Millisecond)
				moment.Set(now)
				if i%100 == 0 {
					counters.List()
					h.Load()
					moment.Load()
				}
			}
		})
	}
	all.Wait()
	listed := uint64(0)
	for _, l := range counters.List() {
		listed += l.Count
	}
	const want = goroutines * each
	if counter.Load() != want || listed != want || h.Load().Count != want || gauge.Load() != 0 || !moment.Load().Equal(now) {
		t.Errorf("%d, %d, %d, %d, %v; want %d", counter.Load(), listed, h.Load().Count, gauge.Load(), moment.Load(), want)
	}
	if got, want := h.Load().Sum, goroutines*each*(each-1)/2*time.Millisecond; got != want {
		t.Errorf("the sum is %v, want %v", got, want)
	}
}

// Counting takes no memory.
func TestAllocations(t *testing.T) {
	var counter Counter
	var counters Counters
	var gauge Gauge
	var h Histogram
	var moment Moment
	counters.Inc("known")
	now := time.Now()
	for name, count := range map[string]func(){
		"Counter":               counter.Inc,
		"Counters, one label":   func() { counters.Inc("known") },
		"Gauge":                 func() { gauge.Add(1) },
		"Histogram":             func() { h.Observe(time.Millisecond) },
		"Histogram, with clock": func() { h.Observe(time.Since(now)) },
		"Moment":                func() { moment.Set(now) },
	} {
		t.Run(name, func(t *testing.T) {
			if n := testing.AllocsPerRun(100, count); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func BenchmarkCounter(b *testing.B) {
	var c Counter
	for b.Loop() {
		c.Inc()
	}
}

func BenchmarkCounters(b *testing.B) {
	var c Counters
	for b.Loop() {
		c.Inc("known")
	}
}

func BenchmarkHistogram(b *testing.B) {
	for name, d := range map[string]time.Duration{"first": 0, "last": time.Hour} {
		b.Run(name, func(b *testing.B) {
			var h Histogram
			for b.Loop() {
				h.Observe(d)
			}
		})
	}
}

// BenchmarkObserveSince is what a part pays to time one operation.
func BenchmarkObserveSince(b *testing.B) {
	var h Histogram
	for b.Loop() {
		began := time.Now()
		h.Observe(time.Since(began))
	}
}
