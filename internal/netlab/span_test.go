package netlab

import (
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// at is a time, in milliseconds after some beginning.
func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

// periods makes spans of pairs of milliseconds.
func periods(ms ...int) (all []span) {
	for i := 0; i+1 < len(ms); i += 2 {
		all = append(all, span{at(ms[i]), at(ms[i+1])})
	}
	return all
}

func TestSpans(t *testing.T) {
	for _, test := range []struct {
		name      string
		got, want []span
	}{
		{"union", union(periods(30, 40, 0, 10, 5, 20, 20, 25)), periods(0, 25, 30, 40)},
		{"union of what is within", union(periods(0, 50, 10, 20)), periods(0, 50)},
		{"intersection", intersect(periods(0, 10, 20, 30), periods(5, 25)), periods(5, 10, 20, 25)},
		{"what only touches", intersect(periods(0, 10), periods(10, 20)), nil},
		{"gaps", gaps(periods(0, 100)[0], periods(20, 30, 25, 50, 90, 120)), periods(0, 20, 50, 90)},
		{"gaps of nothing", gaps(periods(0, 100)[0], nil), periods(0, 100)},
		{"gaps of all", gaps(periods(10, 20)[0], periods(0, 100)), nil},
		{"one owner after another", twice([][]span{periods(0, 10), periods(10, 20)}), nil},
		{"two of three owners", twice([][]span{periods(0, 10), periods(5, 20), periods(18, 30)}), periods(5, 10, 18, 20)},
		{"three owners", twice([][]span{periods(0, 10), periods(0, 10), periods(5, 15)}), periods(0, 10)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, test.got, cmp.AllowUnexported(span{})); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got, want := extent(periods(0, 10, 5, 20, 30, 35)), (Extent{Total: 25 * time.Millisecond, Longest: 20 * time.Millisecond}); got != want {
		t.Errorf("extent %v, want %v", got, want)
	}
}

func TestServiceOf(t *testing.T) {
	const interval, patience = 10 * time.Millisecond, 100 * time.Millisecond
	// steady answers each question after a millisecond, but for those sent from lost to back.
	steady := func(until, lost, back int) (all []Attempt) {
		for ms := 0; ms < until; ms += 10 {
			a := Attempt{Sent: at(ms), By: "a"}
			if ms < lost || ms >= back {
				a.Answered = at(ms + 1)
			}
			all = append(all, a)
		}
		return all
	}
	for _, test := range []struct {
		name     string
		attempts func() []Attempt
		from, to int
		want     Service
	}{
		{"no outage", func() []Attempt { return steady(500, 500, 500) }, 100, 400,
			Service{Sent: 30, Slowest: time.Millisecond, By: []string{"a"}}},
		{"an outage", func() []Attempt { return steady(500, 200, 250) }, 100, 400,
			Service{Sent: 30, Failed: 5, Outage: 50 * time.Millisecond, OutageFrom: at(191), Slowest: time.Millisecond, By: []string{"a"}}},
		{"an outage that questions sit through", func() []Attempt {
			all := steady(500, 200, 250)
			for i := 20; i < 25; i++ {
				all[i].Answered, all[i].By = at(250), "b"
			}
			return all
		}, 100, 400,
			Service{Sent: 30, Outage: 49 * time.Millisecond, OutageFrom: at(191), Slowest: 50 * time.Millisecond, By: []string{"a", "b"}}},
		{"no end of the outage", func() []Attempt { return steady(500, 200, 500) }, 100, 400,
			Service{Sent: 30, Failed: 10, Outage: 199 * time.Millisecond, OutageFrom: at(191), Slowest: time.Millisecond, By: []string{"a"}}},
		{"an outage that began before", func() []Attempt { return steady(500, 50, 150) }, 100, 400,
			Service{Sent: 30, Failed: 5, Outage: 100 * time.Millisecond, OutageFrom: at(41), Slowest: time.Millisecond, By: []string{"a"}}},
		{"refused", func() []Attempt {
			all := steady(500, 390, 400)
			all[39].Err = io.ErrUnexpectedEOF
			return all
		}, 100, 400,
			Service{Sent: 30, Failed: 1, Outage: 9 * time.Millisecond, OutageFrom: at(381), Slowest: time.Millisecond, By: []string{"a"}}},
		{"the probe stood still", func() []Attempt {
			all := steady(500, 500, 500)
			return append(all[:20:20], all[25:]...)
		}, 100, 400,
			Service{Sent: 25, Outage: 50 * time.Millisecond, OutageFrom: at(191), Slowest: time.Millisecond, Stall: 50 * time.Millisecond, By: []string{"a"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := serviceOf(test.attempts(), at(test.from), at(test.to), interval, patience)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
