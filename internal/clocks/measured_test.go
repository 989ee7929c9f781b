package clocks

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// Measured says how much a clock differs, however little that is, and how exactly that is known.
func TestMeasured(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		name   string
		ahead  time.Duration // of the peer's clock, which is read 10 ms after the question
		narrow time.Duration // the answer was given by then, after the question; 0: that is not said
		want   Measured      // asked 100 ms after the question, when the answer has come
	}{
		{"right", 0, 0, Measured{"a", -40*ms + ms/2, 50*ms + ms/2}},
		{"half a second", 500 * ms, 0, Measured{"a", 460*ms + ms/2, 50*ms + ms/2}},
		{"half a second, more exactly", 500 * ms, 20 * ms, Measured{"a", 500*ms + ms/2, 10*ms + ms/2}},
		{"behind", -time.Hour, 20 * ms, Measured{"a", -time.Hour + ms/2, 10*ms + ms/2}},
		{"before the question", 0, -1, Measured{"a", -40*ms + ms/2, 50*ms + ms/2}},
		{"after the answer", 0, 101 * ms, Measured{"a", -40*ms + ms/2, 50*ms + ms/2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(Config{Log: testlog.None()})
				asked := time.Now()
				time.Sleep(10 * ms)
				wall := time.Now().Round(0).Add(test.ahead)
				time.Sleep(90 * ms)
				c.Observe("a", wall, asked)
				c.ObserveAuthority(time.Now())
				c.Narrow("a", asked.Add(1), asked.Add(20*ms)) // about another question
				c.Narrow("b", asked, asked.Add(20*ms))        // about another peer
				if test.narrow != 0 {
					c.Narrow("a", asked, asked.Add(test.narrow))
				}
				if diff := cmp.Diff([]Measured{test.want}, c.Measured()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				time.Sleep(freshFor)
				if got := c.Measured(); got != nil {
					t.Errorf("after a minute: %v", got)
				}
			})
		})
	}
}

// recorder keeps the events among the lines of a log, with what follows the kind.
type recorder struct {
	slog.Handler
	said []string
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }

func (r *recorder) Handle(_ context.Context, rec slog.Record) error {
	line := ""
	rec.Attrs(func(a slog.Attr) bool {
		if kind, ok := a.Value.Any().(event.Kind); ok && line == "" {
			line = string(kind)
			return true
		}
		line += " " + a.Key
		return false
	})
	r.said = append(r.said, line)
	return nil
}

// A clock that differs is an event, and so is its return.
func TestClockEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := &recorder{}
		c := New(Config{Log: slog.New(said)})
		for _, ahead := range []time.Duration{2 * time.Minute, 0, 2 * time.Hour, 0} {
			c.Observe("a", time.Now().Add(ahead), time.Now())
			time.Sleep(lookEvery)
			c.Look()
		}
		want := []string{
			"clock_wrong peer", "clock_right peer",
			"clock_wrong peer", "clock_wrong error", "clock_right peer", "clock_right",
		}
		if diff := cmp.Diff(want, said.said); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
