package clocks

import (
	"errors"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

const farAhead = 100 * 24 * time.Hour // more than the life of a certificate

func TestClocksAgree(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ahead []time.Duration // of the peers
		late  time.Duration   // the answer is
		wrong bool
	}{
		{"alone", nil, 0, false},
		{"all right", []time.Duration{0, time.Second}, 0, false},
		{"one of two peers is wrong", []time.Duration{farAhead, 0}, 0, false},
		{"this one is ahead", []time.Duration{-farAhead, -farAhead}, 0, true},
		{"this one is behind", []time.Duration{farAhead, farAhead}, 0, true},
		{"all three differ", []time.Duration{farAhead, -farAhead}, 0, true},
		{"two of two", []time.Duration{farAhead}, 0, true},
		{"two of four peers", []time.Duration{farAhead, farAhead, 0, 0}, 0, false},
		{"three of four peers", []time.Duration{farAhead, farAhead, farAhead, 0}, 0, true},
		{"half an hour", []time.Duration{time.Hour / 2, time.Hour / 2}, 0, false},
		{"answers that come a day late", []time.Duration{-20 * time.Hour, -20 * time.Hour}, 24 * time.Hour, false},
		{"late answers that prove it all the same", []time.Duration{-72 * time.Hour, -72 * time.Hour}, 24 * time.Hour, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(Config{Log: testlog.None()})
				from := time.Now()
				time.Sleep(tc.late)
				for i, d := range tc.ahead {
					c.Observe(string(rune('a'+i)), time.Now().Add(d), from)
				}
				if err := c.Check(MaxOffset); errors.As(err, new(*Error)) != tc.wrong {
					t.Errorf("check: %v, want an error: %v", err, tc.wrong)
				}
				time.Sleep(freshFor)
				if err := c.Check(MaxOffset); err != nil {
					t.Errorf("an observation of a minute ago counts: %v", err)
				}
			})
		})
	}
}
