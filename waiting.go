package flotilla

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/status"
)

const (
	waitFirst   = 5 * time.Second // a wait is first logged after this time
	waitLongest = 5 * time.Minute // the interval doubles with each log line, up to this
)

// condition is a state in which something waits. why returns what it waits for and which nodes that
// concerns, or an empty string if nothing waits.
type condition struct {
	kind event.Kind // of the event when it begins
	what string
	why  func() string
}

// waiting reports what a node waits for, so that nothing waits in silence. It checks all conditions
// about once a second, so code that waits need not report anything. Its methods are safe for
// concurrent use.
type waiting struct {
	log        *slog.Logger
	conditions []condition
	second     *notify.Signal // see lifecycle.Life
	changed    func()         // called when the result of list has changed

	mu  sync.Mutex
	all map[string]*wait
}

// wait is one condition that is true.
type wait struct {
	status.Wait
	next  time.Time // of the next log line
	pause time.Duration
}

func newWaiting(l *slog.Logger, second *notify.Signal, changed func(), conditions ...condition) *waiting {
	return &waiting{log: l, conditions: conditions, second: second, changed: changed, all: make(map[string]*wait)}
}

// run checks the conditions until ctx ends.
func (w *waiting) run(ctx context.Context) {
	_ = notify.Loop(ctx, func() (time.Time, bool) {
		for _, c := range w.conditions {
			w.look(c, c.why(), time.Now())
		}
		return time.Time{}, false
	}, w.second)
}

// look records the present answer of a condition.
func (w *waiting) look(c condition, why string, now time.Time) {
	what := c.what
	w.mu.Lock()
	s := w.all[what]
	switch {
	case why == "" && s == nil:
		w.mu.Unlock()
		return
	case why == "":
		delete(w.all, what)
		w.mu.Unlock()
		if s.pause > waitFirst {
			w.log.Info("over: "+what, "event", event.WaitEnded, "what", what, "after", now.Sub(s.Since).Round(time.Second))
			w.changed()
		}
		return
	case s == nil:
		s = &wait{Wait: status.Wait{What: what, Since: now}, next: now.Add(waitFirst), pause: waitFirst}
		w.all[what] = s
	}
	news := s.Why != why && s.pause > waitFirst
	s.Why = why
	due, first := !now.Before(s.next), s.pause == waitFirst
	if due {
		s.pause = min(2*s.pause, waitLongest)
		s.next = now.Add(s.pause / 2)
	}
	w.mu.Unlock()
	switch {
	case due && first:
		w.log.Warn(what, "event", c.kind, "why", why, "for", now.Sub(s.Since).Round(time.Second))
	case due:
		w.log.Warn(what, "why", why, "for", now.Sub(s.Since).Round(time.Second))
	}
	if due || news {
		w.changed()
	}
}

// list returns the waits that have been logged.
func (w *waiting) list() []status.Wait {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []status.Wait
	for _, s := range w.all {
		if s.pause > waitFirst {
			out = append(out, s.Wait)
		}
	}
	slices.SortFunc(out, func(a, b status.Wait) int { return strings.Compare(a.What, b.What) })
	return out
}
