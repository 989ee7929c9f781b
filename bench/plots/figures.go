package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// row is one line of a benchmark.
type row struct {
	bench string  // without what varies
	vary  string  // what varies
	x     float64 // its value
	units map[string]float64
	from  origin
	runs  int // that the figures are medians of; 0: this is one run
}

// caption says where the figures come from.
func (r row) caption() string {
	if r.runs < 2 {
		return r.from.String()
	}
	return fmt.Sprintf("%s, medians of %d runs", r.from, r.runs)
}

// origin says where figures come from.
type origin struct{ date, machine, cpu, commit string }

// String returns what a caption says.
func (o origin) String() string {
	return fmt.Sprintf("%s, commit %s, %s of %s", o.date, o.commit, o.machine, o.cpu)
}

// read reads the lines of benchmarks whose name has key=value at its end.
func read(r io.Reader) (rows []row, err error) {
	name := regexp.MustCompile(`^Benchmark(\S+)/([^/=]+)=([0-9.]+)(?:-\d+)?$`)
	in := bufio.NewScanner(r)
	var from origin
	for in.Scan() {
		switch key, value, _ := strings.Cut(in.Text(), ": "); key {
		case "date":
			from.date = value
		case "machine":
			from.machine = value
		case "cpu":
			from.cpu = value
		case "commit":
			from.commit = value
		}
		f := strings.Fields(in.Text())
		if len(f) < 4 {
			continue
		}
		m := name.FindStringSubmatch(f[0])
		if m == nil {
			continue
		}
		x, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, err
		}
		if from.date == "" || from.machine == "" || from.commit == "" {
			return nil, fmt.Errorf("above %s is no date, machine or commit", f[0])
		}
		one := row{bench: m[1], vary: m[2], x: x, units: make(map[string]float64), from: from}
		for i := 2; i+1 < len(f); i += 2 { // after the number of iterations
			if one.units[f[i+1]], err = strconv.ParseFloat(f[i], 64); err != nil {
				return nil, err
			}
		}
		rows = append(rows, one)
	}
	return rows, in.Err()
}
