package records

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

// Outcome is what happened to a group. Its text is the column in the report.
type Outcome string

// The outcomes. The zero value says that the group's turn did not come.
const (
	Taken    Outcome = "taken"
	Written  Outcome = "written"
	Replaced Outcome = "replaced"
	Same     Outcome = "already there"
	Refused  Outcome = "refused"
)

// Report counts outcomes by kind, and collects the reasons of refusals.
type Report struct {
	counted string
	columns []Outcome
	left    map[Kind]int
	counts  map[Kind]map[Outcome]int
	refused []string
	remarks []string
}

// NewReport returns an empty report. The word counted heads the table and may be empty. left counts
// what was left out.
func NewReport(counted string, left map[Kind]int, columns ...Outcome) *Report {
	return &Report{counted: counted, columns: columns, left: left, counts: make(map[Kind]map[Outcome]int)}
}

// Add counts one group. The text is the reason of a refusal, a remark, or empty.
func (r *Report) Add(k Kind, name string, o Outcome, text string) {
	if r.counts[k] == nil {
		r.counts[k] = make(map[Outcome]int)
	}
	r.counts[k][o]++
	switch {
	case o == Refused:
		r.refused = append(r.refused, plaintext.Safe(name)+": "+text)
	case text != "":
		r.remarks = append(r.remarks, plaintext.Safe(name)+": "+text)
	}
}

// AnyRefused reports whether anything was refused.
func (r *Report) AnyRefused() bool { return len(r.refused) > 0 }

// Write prints the report.
func (r *Report) Write(w io.Writer) {
	r.writeCounts(w)
	var left []string
	for _, k := range leftOut() {
		if n := r.left[k]; n > 0 {
			left = append(left, fmt.Sprintf("%s (%d)", k, n))
		}
	}
	if len(left) > 0 {
		fmt.Fprintf(w, "left out: %s\n", strings.Join(left, ", "))
	}
	for _, line := range slices.Sorted(slices.Values(r.remarks)) {
		fmt.Fprintf(w, "remark: %s\n", line)
	}
	for _, line := range slices.Sorted(slices.Values(r.refused)) {
		fmt.Fprintf(w, "refused: %s\n", line)
	}
}

func (r *Report) writeCounts(w io.Writer) {
	if len(r.counts) == 0 {
		return
	}
	fmt.Fprintf(w, "%-14s", r.counted)
	for _, o := range r.columns {
		fmt.Fprintf(w, "  %s", o)
	}
	fmt.Fprintln(w)
	for _, k := range transferred() {
		if r.counts[k] == nil {
			continue
		}
		fmt.Fprintf(w, "%-14s", k)
		for _, o := range r.columns {
			fmt.Fprintf(w, "  %*d", len(o), r.counts[k][o])
		}
		fmt.Fprintln(w)
	}
}
