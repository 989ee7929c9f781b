package netlab

import (
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// at returns a time that many milliseconds after a fixed one.
func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestServiceOf(t *testing.T) {
	const ms = time.Millisecond
	const interval, timeout = 10 * ms, 100 * ms
	a := []string{"a"}
	// steady answers each question after a millisecond, except those sent from lost to back.
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
			Service{Sent: 30, Slowest: ms, By: a}},
		{"an outage", func() []Attempt { return steady(500, 200, 250) }, 100, 400,
			Service{Sent: 30, Failed: 5, Outage: 50 * ms, OutageFrom: at(191), Slowest: ms, By: a}},
		{"an outage that questions sit through", func() []Attempt {
			all := steady(500, 200, 250)
			for i := 20; i < 25; i++ {
				all[i].Answered, all[i].By = at(250), "b"
			}
			return all
		}, 100, 400,
			Service{Sent: 30, Outage: 49 * ms, OutageFrom: at(191), Slowest: 50 * ms, By: []string{"a", "b"}}},
		{"no end of the outage", func() []Attempt { return steady(500, 200, 500) }, 100, 400,
			Service{Sent: 30, Failed: 10, Outage: 199 * ms, OutageFrom: at(191), Slowest: ms, By: a}},
		{"an outage that began before", func() []Attempt { return steady(500, 50, 150) }, 100, 400,
			Service{Sent: 30, Failed: 5, Outage: 100 * ms, OutageFrom: at(41), Slowest: ms, By: a}},
		{"refused", func() []Attempt {
			all := steady(500, 390, 400)
			all[39].Err = io.ErrUnexpectedEOF
			return all
		}, 100, 400,
			Service{Sent: 30, Failed: 1, Outage: 9 * ms, OutageFrom: at(381), Slowest: ms, By: a}},
		{"the probe stood still", func() []Attempt {
			all := steady(500, 500, 500)
			return append(all[:20:20], all[25:]...)
		}, 100, 400,
			Service{Sent: 25, Outage: 50 * ms, OutageFrom: at(191), Slowest: ms, Stall: 50 * ms, By: a}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := serviceOf(test.attempts(), at(test.from), at(test.to), interval, timeout)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
