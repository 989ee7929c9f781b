package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestChart(t *testing.T) {
	const out = `date: 2026-11-29
machine: 2 processors
commit: abc
goos: linux
cpu: Some CPU
BenchmarkSlowDisk/fsync-ms=2-2  1  3.26 p50-ms  9.34 raft-p50-ms  0.357 ratio
BenchmarkSlowDisk/fsync-ms=0.1  1  1.03 p50-ms  1.17 raft-p50-ms  0.879 ratio
BenchmarkSlowDisk/fsync-ms=5  1  1 other
BenchmarkOther-2  1  3 ns/op
PASS
`
	rows, err := read(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	c := charts()[0]
	points := c.points(rows)
	if got := points[0].caption(); got != "2026-11-29, commit abc, 2 processors of Some CPU" {
		t.Error(got)
	}
	if len(points) != 2 || points[0].x != 0.1 || points[1].units["ratio"] != 0.357 {
		t.Fatal(points)
	}
	svg, err := c.draw(points)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2026-11-29, commit abc, 2 processors of Some CPU", "flotilla, p50"} {
		if !bytes.Contains(svg, []byte(want)) {
			t.Errorf("the picture does not have %q", want)
		}
	}
	var doc bytes.Buffer
	c.table(&doc, points)
	if !strings.Contains(doc.String(), "\n| 2 | 3.26 | 9.34 | 0.357 |") {
		t.Error(doc.String())
	}
}

// Several runs give medians. Those that were measured later take the place of all earlier ones.
func TestRuns(t *testing.T) {
	const out = `date: 2026-11-28
machine: 2 processors
commit: abc
BenchmarkSlowDisk/fsync-ms=2  1  100 p50-ms
BenchmarkSlowDisk/fsync-ms=5  1  100 p50-ms
commit: def
BenchmarkSlowDisk/fsync-ms=2  1  3 p50-ms
BenchmarkSlowDisk/fsync-ms=2  1  1 p50-ms  7 ratio
BenchmarkSlowDisk/fsync-ms=2  1  2 p50-ms
`
	rows, err := read(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	points := charts()[0].points(rows)
	if len(points) != 1 || points[0].units["p50-ms"] != 2 || points[0].units["ratio"] != 7 {
		t.Errorf("the points are %v", points)
	}
	if got := points[0].caption(); !strings.Contains(got, "commit def") || !strings.Contains(got, "medians of 3 runs") {
		t.Error(got)
	}
}
