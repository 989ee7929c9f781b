package docscheck

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// row is a row of a table: its cells, and the headings of its columns.
type row struct {
	line  int
	head  []string
	cells []string
}

// cell returns the cell below a heading, empty if there is none.
func (r row) cell(head string) string {
	for i, h := range r.head {
		if h == head && i < len(r.cells) {
			return r.cells[i]
		}
	}
	return ""
}

// tables returns the rows of all tables in a document.
func tables(text string) []row {
	var rows []row
	var head []string
	code := false
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if code || !strings.HasPrefix(line, "|") {
			head = nil
			continue
		}
		var cells []string
		for c := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cells = append(cells, strings.TrimSpace(c))
		}
		switch {
		case head == nil:
			head = cells
		case strings.Trim(line, "|-: ") == "":
		default:
			rows = append(rows, row{i + 1, head, cells})
		}
	}
	return rows
}

// spans returns what stands in backticks.
func spans(text string) []string {
	var all []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

func TestTables(t *testing.T) {
	got := tables("x\n\n| a | b |\n|---|---|\n| `1` | 2 |\n\n```\n| no |\n```\n")
	want := []row{{5, []string{"a", "b"}, []string{"`1`", "2"}}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
		t.Error(diff)
	}
}
