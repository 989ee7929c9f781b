// Package steps shows the steps of a fail-over: when each was first done on any of the nodes that
// survived. It reads their logs, so a figure includes the time that a line takes to be written.
package steps

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Logger returns a logger for nodes whose logs this package reads.
func Logger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			// Lines of raft have another attribute of that name.
			if a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
				return slog.String(slog.TimeKey, a.Value.Time().Format(time.RFC3339Nano))
			}
			return a
		},
	}))
}

// Step is a step of a fail-over.
type Step struct {
	// Name says what is done.
	Name string

	line string // its line in the log contains this
}

// All returns the steps in their order. Not every fail-over has all of them.
func All() []Step {
	return []Step{
		{"connections of the dead process end", `msg="a peer's connections have ended"`},
		{"a node stands for election", `msg="standing for election"`},
		{"death notice comes", `msg="a death notice has come"`},
		{"candidate", `msg="entering candidate state"`},
		{"its term is stored", `msg="voting for self"`},
		{"first vote", `tally=1`},
		{"election won", `msg="election won"`},
		{"first entry of the term is applied", `msg="this node leads"`},
		{"session is over", `msg="the session of a dead process is over"`},
		{"role is granted", `msg="this node holds a role"`},
		{"address is in the kernel and announced", `msg="floating address: bound"`},
	}
}

// Trial is when each step was done, counted from the fault. A step that was not seen is missing.
type Trial map[string]time.Duration

// Read finds the steps after the fault in the logs of the nodes that survived.
func Read(fault time.Time, logs ...string) Trial {
	t := make(Trial)
	for _, log := range logs {
		for line := range strings.Lines(log) {
			text, ok := strings.CutPrefix(line, "time=")
			if !ok {
				continue
			}
			stamp, rest, _ := strings.Cut(text, " ")
			at, err := time.Parse(time.RFC3339Nano, stamp)
			if err != nil || at.Before(fault) {
				continue
			}
			for _, s := range All() {
				if old, seen := t[s.Name]; strings.Contains(rest, s.line) && (!seen || at.Sub(fault) < old) {
					t[s.Name] = at.Sub(fault)
				}
			}
		}
	}
	return t
}

// Table returns a table with the median and the maximum of each step, in milliseconds.
func Table(title string, trials []Trial) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n| %s, ms after the kill | trials | median | maximum |\n|---|---|---|---|\n", title)
	for _, s := range All() {
		var all []time.Duration
		for _, t := range trials {
			if d, ok := t[s.Name]; ok {
				all = append(all, d)
			}
		}
		if len(all) == 0 {
			continue
		}
		slices.Sort(all)
		ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
		fmt.Fprintf(&b, "| %s | %d | %.1f | %.1f |\n", s.Name, len(all), ms(all[len(all)/2]), ms(all[len(all)-1]))
	}
	return b.String()
}
