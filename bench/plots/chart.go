package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chart is one picture.
type chart struct {
	file, title  string
	bench, vary  string // the benchmark and what varies
	x, y         string // labels of the axes
	logX         bool
	series       []series
	onlyInTables []series
}

// series is a line in a chart.
type series struct{ unit, label string }

// points returns what rows have for a chart, in order: the medians of the runs of each size. Only
// runs of the newest origin count.
func (c chart) points(rows []row) (all []row) {
	var mine []row
	for _, r := range rows {
		measured := func(s series) bool { _, ok := r.units[s.unit]; return ok }
		if r.bench == c.bench && r.vary == c.vary && slices.ContainsFunc(c.series, measured) {
			mine = append(mine, r)
		}
	}
	runs := make(map[float64][]row)
	for _, r := range mine {
		if r.from == mine[len(mine)-1].from {
			runs[r.x] = append(runs[r.x], r)
		}
	}
	for _, x := range slices.Sorted(maps.Keys(runs)) {
		all = append(all, medians(runs[x]))
	}
	return all
}

// medians returns the median of each figure of some runs.
func medians(runs []row) row {
	one := runs[0]
	one.runs, one.units = len(runs), make(map[string]float64)
	values := make(map[string][]float64)
	for _, r := range runs {
		for unit, v := range r.units {
			values[unit] = append(values[unit], v)
		}
	}
	for unit, all := range values {
		slices.Sort(all)
		one.units[unit] = (all[(len(all)-1)/2] + all[len(all)/2]) / 2
	}
	return one
}

// draw returns the picture.
func (c chart) draw(points []row) ([]byte, error) {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s\n%s", c.title, points[0].caption())
	p.Title.TextStyle.Font.Size = vg.Points(10)
	p.X.Label.Text, p.Y.Label.Text = c.x, c.y
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Points(2)
	if c.logX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, ticks(points)
	}
	p.Add(plotter.NewGrid())
	for i, s := range c.series {
		var line plotter.XYs
		for _, pt := range points {
			if y, ok := pt.units[s.unit]; ok {
				line = append(line, plotter.XY{X: pt.x, Y: y})
			}
		}
		l, dots, err := plotter.NewLinePoints(line)
		if err != nil {
			return nil, err
		}
		l.Color, dots.Color, dots.Shape = plotutil.Color(i), plotutil.Color(i), plotutil.Shape(i)
		p.Add(l, dots)
		p.Legend.Add(s.label, l, dots)
	}
	p.Y.Min = 0
	p.Y.Max *= 1.25 // room for the legend
	canvas := vgsvg.New(16*vg.Centimeter, 11*vg.Centimeter)
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	_, err := canvas.WriteTo(&b)
	return b.Bytes(), err
}

// ticks marks the values that were measured.
func ticks(points []row) plot.ConstantTicks {
	var all plot.ConstantTicks
	for _, p := range points {
		all = append(all, plot.Tick{Value: p.x, Label: number(p.x)})
	}
	return all
}

// table writes a section of the document.
func (c chart) table(w io.Writer, points []row) {
	fmt.Fprintf(w, "\n## %s\n\n%s.\n\n![%s](%s)\n\n", c.title, points[0].caption(), c.title, c.file)
	columns := slices.Concat(c.series, c.onlyInTables)
	fmt.Fprintf(w, "| %s |", c.x)
	for _, s := range columns {
		fmt.Fprintf(w, " %s |", s.label)
	}
	fmt.Fprint(w, "\n|---|")
	for range columns {
		fmt.Fprint(w, "---|")
	}
	for _, p := range points {
		fmt.Fprintf(w, "\n| %s |", number(p.x))
		for _, s := range columns {
			if y, ok := p.units[s.unit]; ok {
				fmt.Fprintf(w, " %s |", number(y))
			} else {
				fmt.Fprint(w, " |")
			}
		}
	}
	fmt.Fprintln(w)
}

// number writes a figure with three digits, or as many as stand before its point.
func number(v float64) string {
	if v >= 1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	return strconv.FormatFloat(v, 'f', -1, 64)
}
