package preflight

import (
	"fmt"
	"slices"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warning Level = "warning" // the node can start, and something is not as it should be
	Failure Level = "failure" // the node would not start, or could not do its work
)

// Finding is what one look has found.
type Finding struct {
	// Item is what was looked at: "directory", "peer 10.0.0.2:7373".
	Item string

	// Level is how bad it is.
	Level Level

	// Text says what was found.
	Text string

	// Remedy says what to do about it. Empty: nothing.
	Remedy string `json:",omitempty"`
}

// Report is all findings, in the order of the steps.
type Report []Finding

// Count returns how many findings are of a level.
func (r Report) Count(l Level) (n int) {
	for _, f := range r {
		if f.Level == l {
			n++
		}
	}
	return n
}

// Find returns the finding about an item.
func (r Report) Find(item string) (Finding, bool) {
	i := slices.IndexFunc(r, func(f Finding) bool { return f.Item == item })
	if i < 0 {
		return Finding{}, false
	}
	return r[i], true
}

// ok, warn and fail add a finding.
func (r *Report) ok(item, format string, args ...any) {
	*r = append(*r, Finding{Item: item, Level: OK, Text: fmt.Sprintf(format, args...)})
}

func (r *Report) warn(item, remedy, format string, args ...any) {
	*r = append(*r, Finding{Item: item, Level: Warning, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (r *Report) fail(item, remedy, format string, args ...any) {
	*r = append(*r, Finding{Item: item, Level: Failure, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}
