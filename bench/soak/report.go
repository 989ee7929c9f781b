//go:build unix

package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

const shownViolations = 20

// report counts what the clusters of one mode did, and what went wrong.
type report struct {
	mode   string
	events int

	mu         sync.Mutex
	counts     map[string]int
	took       []time.Duration
	violations []string
}

func newReport(mode string, events int) *report {
	return &report{mode: mode, events: events, counts: make(map[string]int)}
}

// count notes that something happened once more. The mode's own name counts its events.
func (r *report) count(what string) { r.add(what, 1) }

func (r *report) add(what string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what] += n
}

// lasted notes how long an event took.
func (r *report) lasted(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took = append(r.took, d)
}

// violate notes that something that flotilla promises was broken.
func (r *report) violate(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.violations = append(r.violations, text)
	shown := len(r.violations) <= shownViolations
	r.mu.Unlock()
	if shown {
		fmt.Println("VIOLATION:", text)
	}
}

func (r *report) bad() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.violations) > 0
}

// progress prints a line now and then until stop is called.
func (r *report) progress(every time.Duration) (stop func()) {
	done := make(chan struct{})
	ticker := time.NewTicker(every)
	go func() {
		for {
			select {
			case <-ticker.C:
				r.mu.Lock()
				fmt.Printf("%s: %d of %d, %d violations\n", r.mode, r.counts[r.mode], r.events, len(r.violations))
				r.mu.Unlock()
			case <-done:
				return
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(done)
	}
}

func (r *report) summary(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Printf("%s: %d of %d in %v\n", r.mode, r.counts[r.mode], r.events, took.Round(time.Second))
	for _, what := range slices.Sorted(maps.Keys(r.counts)) {
		if what != r.mode {
			fmt.Printf("  %7d %s\n", r.counts[what], what)
		}
	}
	if slices.Sort(r.took); len(r.took) > 0 {
		fmt.Printf("  %7v median, %v longest\n", r.took[len(r.took)/2].Round(time.Millisecond), r.took[len(r.took)-1].Round(time.Millisecond))
	}
	fmt.Printf("  %7d violations\n", len(r.violations))
}
