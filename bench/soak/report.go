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

// report counts the events and the violations of the clusters of one mode.
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

// count counts one more of something. The name of the mode counts its events.
func (r *report) count(what string) { r.add(what, 1) }

func (r *report) add(what string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what] += n
}

// lasted records how long an event took.
func (r *report) lasted(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took = append(r.took, d)
}

// violate records that a guarantee of flotilla was violated.
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

// progress prints a line from time to time until stop is called.
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
