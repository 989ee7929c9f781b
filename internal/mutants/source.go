package main

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// source is the module's source as the search for moved lines sees it.
type source struct {
	files map[string]string          // the production files' text, by their names from the root
	names []string                   // of the files, in order
	tests map[string]map[string]bool // the functions of the test files, by directory
}

// readSource reads the module at root. It leaves out modules within it, and the directory of the
// tables.
func readSource(root, tables string) (*source, error) {
	s := &source{files: make(map[string]string), tests: make(map[string]map[string]bool)}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && (leftOut(name, d.Name()) || filepath.Clean(name) == filepath.Clean(tables)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		s.add(rel, string(b))
		return nil
	})
	return s, err
}

// leftOut is true for directories without production code of the module: hidden ones, test data,
// and other modules.
func leftOut(dir, base string) bool {
	if strings.HasPrefix(base, ".") || base == "testdata" {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func (s *source) add(name, text string) {
	if !strings.HasSuffix(name, "_test.go") {
		s.files[name] = text
		s.names = append(s.names, name)
		return
	}
	dir := path.Dir(name)
	if s.tests[dir] == nil {
		s.tests[dir] = make(map[string]bool)
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "func (") { // no method
			s.tests[dir][functionName(line)] = true
		}
	}
}

// nearest describes the line that is most like the row's. A function of the same name comes first
// among equals, then the same file.
func (s *source) nearest(r row) string {
	best, place := len(r.line)*2/3, "" // what differs more is another line
	better := 0
	for _, name := range s.names {
		lines := strings.Split(s.files[name], "\n")
		for i, l := range lines {
			l = strings.TrimSpace(l)
			d := distance(l, r.line, best)
			if d > best {
				continue
			}
			likeness := 0
			if functionAt(lines, i) == r.in {
				likeness += 2
			}
			if name == r.file {
				likeness++
			}
			if d < best || place == "" || likeness > better {
				best, better = d, likeness
				place = fmt.Sprintf("\n\tnearest: %s:%d %s\n\t\t%s", name, i+1, functionAt(lines, i), l)
			}
		}
	}
	return place
}

// functionAt returns the name of the function that a line is in; empty: it is in none.
func functionAt(lines []string, i int) string {
	for ; i >= 0; i-- {
		if name := functionName(lines[i]); name != "" {
			return name
		}
		if lines[i] == "}" {
			break
		}
	}
	return ""
}

// distance returns how many bytes must be put in, left out or changed to make a of b. It stops
// early with any number above the limit.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			row[j+1] = min(above, row[j]) + 1
			if a[i] == b[j] {
				row[j+1] = min(row[j+1], diagonal)
			} else {
				row[j+1] = min(row[j+1], diagonal+1)
			}
			diagonal = above
		}
		if least := slices.Min(row); least > limit {
			return least
		}
	}
	return row[len(b)]
}
