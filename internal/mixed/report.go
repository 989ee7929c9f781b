//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// report prints progress, and counts what must not happen.
type report struct {
	out   io.Writer
	began time.Time

	mu       sync.Mutex
	failures int
	requests int           // that were answered
	retried  int           // of them by another node than the first
	slowest  time.Duration // of them
	events   map[string]int
}

func newReport(out io.Writer) *report {
	return &report{out: out, began: time.Now(), events: make(map[string]int)}
}

// say prints a line of progress.
func (r *report) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.print(fmt.Sprintf(format, args...))
}

// fail notes that something has happened that must not.
func (r *report) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
	r.print("FAILED: " + fmt.Sprintf(format, args...))
}

// print prints a line. r.mu is held.
func (r *report) print(text string) {
	fmt.Fprintf(r.out, "%6.1fs  %s\n", time.Since(r.began).Seconds(), text)
}

// event counts what was done to a node.
func (r *report) event(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events[what]++
}

// answered counts a request that was answered after so many tries.
func (r *report) answered(took time.Duration, tries int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests++
	r.slowest = max(r.slowest, took)
	if tries > 1 {
		r.retried++
	}
}

// failed returns how often something has happened that must not.
func (r *report) failed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures
}

// summary says what was done.
func (r *report) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%d requests, %d of them answered by another node than the first, the slowest after %v; %v; %d failures",
		r.requests, r.retried, r.slowest.Round(time.Millisecond), r.events, r.failures)
}

// isExpected reports whether a line of a log is no fault of a program: the node is refused as an
// older one, or the disk of this machine is slow, or the node was stopped while it wrote.
func isExpected(line string) bool {
	return strings.Contains(line, "refuses this node: the cluster has version") || strings.Contains(line, "the disk hangs")
}

// readErrors notes the errors in the log of a node.
func (r *report) readErrors(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "level=ERROR") && !isExpected(line) {
			r.fail("%s: %s", path, strings.TrimSpace(line))
		}
	}
	return nil
}
