package flotilla

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	waitFirst   = 5 * time.Second // after so long the log hears that something waits
	waitLongest = 5 * time.Minute // and then again after twice as long each time, up to this
	waitLook    = time.Second
)

// WaitStatus is something that a node has been waiting for, for some seconds at least.
type WaitStatus struct {
	What  string // what waits, or is not as it should be
	Why   string // for whom it waits, and what is known of them
	Since time.Time
}

// condition is a state in which something waits. Why says for what and for whom; empty: nothing
// waits.
type condition struct {
	what string
	why  func() string
}

// waiting reports what a node waits for: nothing does so in silence. It looks at conditions once a
// second, so whoever waits has nothing to say to it. Its methods are safe for concurrent use.
type waiting struct {
	log        *slog.Logger
	conditions []condition
	changed    func() // list returns something else

	mu  sync.Mutex
	all map[string]*wait
}

// wait is one condition that is true.
type wait struct {
	WaitStatus
	next  time.Time // when the log hears of it
	pause time.Duration
}

func newWaiting(l *slog.Logger, changed func(), conditions ...condition) *waiting {
	return &waiting{log: l, conditions: conditions, changed: changed, all: make(map[string]*wait)}
}

// run looks at the conditions until ctx ends.
func (w *waiting) run(ctx context.Context) {
	tick := time.NewTicker(waitLook)
	defer tick.Stop()
	for {
		for _, c := range w.conditions {
			w.look(c.what, c.why(), time.Now())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look takes down what a condition says now.
func (w *waiting) look(what, why string, now time.Time) {
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
			w.log.Info("over: "+what, "after", now.Sub(s.Since).Round(time.Second))
			w.changed()
		}
		return
	case s == nil:
		s = &wait{WaitStatus: WaitStatus{What: what, Since: now}, next: now.Add(waitFirst), pause: waitFirst}
		w.all[what] = s
	}
	news := s.Why != why && s.pause > waitFirst
	s.Why = why
	due := !now.Before(s.next)
	if due {
		s.pause = min(2*s.pause, waitLongest)
		s.next = now.Add(s.pause / 2)
	}
	w.mu.Unlock()
	if due {
		w.log.Warn(what, "why", why, "for", now.Sub(s.Since).Round(time.Second))
	}
	if due || news {
		w.changed()
	}
}

// list returns what the log has heard of.
func (w *waiting) list() []WaitStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []WaitStatus
	for _, s := range w.all {
		if s.pause > waitFirst {
			out = append(out, s.WaitStatus)
		}
	}
	slices.SortFunc(out, func(a, b WaitStatus) int { return strings.Compare(a.What, b.What) })
	return out
}
