package term

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

// Table is rows of cells below a head.
type Table struct {
	head []string
	rows [][]cell
}

type cell struct {
	text string
	hue  Hue
}

// NewTable returns a table without rows. The head names the columns.
func NewTable(head ...string) *Table { return &Table{head: head} }

// Row adds a row. A Hue among the parts colours the cell before it; every other part is a cell.
func (t *Table) Row(parts ...any) {
	var row []cell
	for _, part := range parts {
		switch part := part.(type) {
		case Hue:
			row[len(row)-1].hue = part
		default:
			row = append(row, cell{text: plaintext.Safe(fmt.Sprint(part))})
		}
	}
	t.rows = append(t.rows, row)
}

// Write prints the table. Cells that do not fit into Columns are cut.
func (t *Table) Write(w io.Writer, s Style) {
	widths := t.widths()
	var head []cell
	for _, h := range t.head {
		head = append(head, cell{h, Strong})
	}
	writeRow(w, s, head, widths)
	for _, row := range t.rows {
		writeRow(w, s, row, widths)
	}
}

// widths returns the width of each column. If the table is too wide, the widest columns shrink
// first, but never below their heads.
func (t *Table) widths() []int {
	widths := make([]int, len(t.head))
	for i, h := range t.head {
		widths[i] = utf8.RuneCountInString(h)
	}
	least := append([]int(nil), widths...)
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for {
		total, widest := 2*(len(widths)-1), -1
		for i := range widths {
			total += widths[i]
			if widths[i] > least[i] && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if total <= Columns || widest < 0 {
			return widths
		}
		widths[widest]--
	}
}

func writeRow(w io.Writer, s Style, row []cell, widths []int) {
	var b strings.Builder
	gap := 0 // spaces before the next cell that is not empty, so that no line ends with a space
	for i, c := range row {
		text := cut(c.text, widths[i])
		if text != "" {
			b.WriteString(strings.Repeat(" ", gap))
			gap = 0
		}
		b.WriteString(s.Paint(text, c.hue))
		gap += widths[i] - utf8.RuneCountInString(text) + 2
	}
	fmt.Fprintln(w, b.String())
}
