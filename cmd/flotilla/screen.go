package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

const columns = 80 // that everything fits into

// hue is the colour of a text, by what it means.
type hue string

const (
	plain  hue = ""
	strong hue = "1"
	good   hue = "32"
	odd    hue = "33"
	bad    hue = "31"
)

// style paints for a screen. The zero style does not.
type style struct{ on bool }

// style returns that for stdout: colours are for people at a terminal who have not set NO_COLOR (no-color.org).
func (p *program) style() style {
	return style{p.screen && p.env("NO_COLOR") == "" && p.env("TERM") != "dumb"}
}

func (s style) paint(text string, h hue) string {
	if !s.on || h == plain || text == "" {
		return text
	}
	return "\x1b[" + string(h) + "m" + text + "\x1b[0m"
}

// cell is one field of a table.
type cell struct {
	text string
	hue  hue
}

// table is lines of cells under a head.
type table struct {
	head []string
	rows [][]cell
}

// row adds a line of plain cells and hues: a hue belongs to the text before it.
func (t *table) row(parts ...any) {
	var row []cell
	for _, part := range parts {
		switch part := part.(type) {
		case hue:
			row[len(row)-1].hue = part
		default:
			row = append(row, cell{text: shown(fmt.Sprint(part))})
		}
	}
	t.rows = append(t.rows, row)
}

// write prints the table. What does not fit into the columns is cut, in the widest fields first.
func (t *table) write(w io.Writer, s style) {
	width := make([]int, len(t.head))
	for i, h := range t.head {
		width[i] = utf8.RuneCountInString(h)
	}
	least := append([]int(nil), width...)
	for _, row := range t.rows {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c.text))
		}
	}
	for {
		total, widest := 2*(len(width)-1), -1
		for i := range width {
			total += width[i]
			if width[i] > least[i] && (widest < 0 || width[i] > width[widest]) {
				widest = i
			}
		}
		if total <= columns || widest < 0 {
			break
		}
		width[widest]--
	}
	line := func(row []cell) {
		var b strings.Builder
		gap := 0 // not written unless something follows: lines do not end with space
		for i, c := range row {
			text := cut(c.text, width[i])
			if text != "" {
				b.WriteString(strings.Repeat(" ", gap))
				gap = 0
			}
			b.WriteString(s.paint(text, c.hue))
			gap += width[i] - utf8.RuneCountInString(text) + 2
		}
		fmt.Fprintln(w, b.String())
	}
	var head []cell
	for _, h := range t.head {
		head = append(head, cell{h, strong})
	}
	line(head)
	for _, row := range t.rows {
		line(row)
	}
}

// cut shortens a text to n characters.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:max(n-1, 0)]) + "…"
}

// wrap breaks a text into lines that fit into the columns; the second and later ones are set in.
func wrap(text string) string {
	var b strings.Builder
	at := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case at+1+n > columns:
			b.WriteString("\n  ")
			at = 2
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}

// fold is wrap on a screen. Programs read lines as they are.
func (p *program) fold(text string) string {
	if p.screen {
		return wrap(text)
	}
	return text
}

// span is a time in one unit, rounded down.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// short is enough of an ID to tell two apart.
func short(id string) string { return id[:min(8, len(id))] }
