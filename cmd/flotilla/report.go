package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// outcome is what has become of a group. Its text is the column of the report.
type outcome string

const (
	outcomeTaken    outcome = "taken"
	outcomeWritten  outcome = "written"
	outcomeReplaced outcome = "replaced"
	outcomeSame     outcome = "already there"
	outcomeRefused  outcome = "refused"
)

// report is what a command says at its end.
type report struct {
	counted string // what the numbers count
	total   int    // of these
	columns []outcome
	counts  map[kind]map[outcome]int
	left    map[kind]int
	refused []string
	remarks []string
}

func newReport(counted string, total int, left map[kind]int, columns ...outcome) *report {
	return &report{counted: counted, total: total, columns: columns, counts: make(map[kind]map[outcome]int), left: left}
}

// add counts one group. The text is the reason of a refusal, or a remark, or empty.
func (r *report) add(k kind, name string, o outcome, text string) {
	if r.counts[k] == nil {
		r.counts[k] = make(map[outcome]int)
	}
	r.counts[k][o]++
	switch {
	case o == outcomeRefused:
		r.refused = append(r.refused, shown(name)+": "+text)
	case text != "":
		r.remarks = append(r.remarks, shown(name)+": "+text)
	}
}

// write prints the report.
func (r *report) write(w io.Writer) {
	if len(r.counts) > 0 {
		fmt.Fprintf(w, "%-14s", r.counted)
		for _, o := range r.columns {
			fmt.Fprintf(w, "  %s", o)
		}
		fmt.Fprintln(w)
	}
	for _, k := range takenKinds() {
		if r.counts[k] == nil {
			continue
		}
		fmt.Fprintf(w, "%-14s", k)
		for _, o := range r.columns {
			fmt.Fprintf(w, "  %*d", len(o), r.counts[k][o])
		}
		fmt.Fprintln(w)
	}
	var left []string
	for _, k := range leftKinds() {
		if n := r.left[k]; n > 0 {
			left = append(left, fmt.Sprintf("%s (%d)", k, n))
		}
	}
	if len(left) > 0 {
		fmt.Fprintf(w, "left out: %s\n", strings.Join(left, ", "))
	}
	if r.total == 0 {
		fmt.Fprintln(w, "there is nothing to bring over")
	}
	for _, line := range slices.Sorted(slices.Values(r.remarks)) {
		fmt.Fprintf(w, "remark: %s\n", line)
	}
	for _, line := range slices.Sorted(slices.Values(r.refused)) {
		fmt.Fprintf(w, "refused: %s\n", line)
	}
}

// err is errRefused if anything was.
func (r *report) err() error {
	if len(r.refused) > 0 {
		return errRefused
	}
	return nil
}

// shown is a name as a terminal may have it.
func shown(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(name)
	}
	return name
}

// progress shows on a terminal how far a long run is.
type progress struct {
	done atomic.Int64
	stop chan struct{}
	gone chan struct{}
}

// startProgress shows done of total, or with no total the time, on the terminal once two seconds have passed. Without a terminal it shows nothing.
func (p *program) startProgress(doing string, total int) *progress {
	g := &progress{stop: make(chan struct{}), gone: make(chan struct{})}
	if !p.terminal {
		close(g.gone)
		return g
	}
	go func() {
		defer close(g.gone)
		wait, start := 2*time.Second, time.Now()
		for shownOnce := false; ; shownOnce, wait = true, 200*time.Millisecond {
			select {
			case <-time.After(wait):
				if total > 0 {
					fmt.Fprintf(p.stderr, "\r%s: %d of %d", doing, g.done.Load(), total)
				} else {
					fmt.Fprintf(p.stderr, "\r%s: %d s", doing, int(time.Since(start).Seconds()))
				}
			case <-g.stop:
				if shownOnce {
					fmt.Fprint(p.stderr, "\r\x1b[K")
				}
				return
			}
		}
	}()
	return g
}

// end takes the line away.
func (g *progress) end() {
	close(g.stop)
	<-g.gone
}
