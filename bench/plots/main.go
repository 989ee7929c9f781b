// Command plots draws the figures of benchmarks. It reads what go test -bench prints, and writes
// SVG files and a README.md with the same figures as tables. It leaves out what the input does not
// have. Names of benchmarks end with what varies: BenchmarkSlowDisk/fsync-ms=2. Lines of the form
// date:, machine: and commit: say where the figures below them come from. Several lines of one name
// are runs, whose medians are drawn.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("dir", ".", "directory of the files")
	flag.Parse()
	if err := run(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "plots:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	rows, err := read(os.Stdin)
	if err != nil {
		return err
	}
	var doc bytes.Buffer
	fmt.Fprintf(&doc, "# Plots\n\n`make bench-plots` wrote this file and its plots from [figures.txt](figures.txt).\n")
	for _, c := range charts() {
		points := c.points(rows)
		if len(points) == 0 {
			fmt.Fprintf(os.Stderr, "plots: no figures for %s\n", c.file)
			continue
		}
		svg, err := c.draw(points)
		if err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
		if err := os.WriteFile(filepath.Join(dir, c.file), svg, 0o644); err != nil {
			return err
		}
		c.table(&doc, points)
	}
	return os.WriteFile(filepath.Join(dir, "README.md"), doc.Bytes(), 0o644)
}
