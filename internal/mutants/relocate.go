package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// relocate makes the rows of the tables in a directory follow code and tests that have moved. It
// rewrites a row whose line is in exactly one other production file, or in a function of another
// name. It prints every change. A row whose line is nowhere stays as it is. It is printed with the
// line that is most like its own.
func relocate(root, tables string, out io.Writer) error {
	src, err := readSource(root, tables)
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(tables, "*.go"))
	if err != nil {
		return err
	}
	lost := 0
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		n, err := relocateTable(path, src, out)
		if err != nil {
			return err
		}
		lost += n
	}
	if lost > 0 {
		return fmt.Errorf("%d rows need your help: give each the line, or the test, that has its purpose now", lost)
	}
	return nil
}

// relocateTable rewrites one file with rows. It returns how many rows it could not place.
func relocateTable(path string, src *source, out io.Writer) (lost int, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	entries, err := entriesOf(path, string(text))
	if err != nil {
		return 0, err
	}
	var edits []edit
	for _, e := range entries {
		moved, err := src.follow(e.row)
		if err != nil {
			fmt.Fprintf(out, "%s:%d: %s, %q: %v\n", filepath.Base(path), e.number, e.place(), e.line, err)
			lost++
			continue
		}
		if moved == e.row {
			continue
		}
		fmt.Fprintf(out, "%s:%d: %s -> %s, tested in %s\n",
			filepath.Base(path), e.number, e.place(), moved.place(), moved.where())
		edits = append(edits, e.rewrite(moved)...)
	}
	if len(edits) == 0 {
		return lost, nil
	}
	return lost, os.WriteFile(path, []byte(apply(string(text), edits)), 0o644)
}

// follow returns the row as it must be now: with the file and the function that its line is in, and
// the package of its test.
func (s *source) follow(r row) (row, error) {
	tested := path.Clean(r.where())
	if _, err := r.find(s.files[r.file]); err != nil {
		moved, err := s.locate(r)
		if err != nil {
			return r, err
		}
		r = moved
	}
	return s.followTest(r, tested)
}

// locate finds the row's line elsewhere: in another file's function of the same name, else
// anywhere.
func (s *source) locate(r row) (row, error) {
	if err := r.check(); err != nil {
		return r, err
	}
	var found []row
	for _, name := range s.names {
		moved := r
		moved.file = name
		if _, err := moved.find(s.files[name]); err == nil {
			found = append(found, moved)
		}
	}
	if len(found) == 0 {
		found = s.everywhere(r)
	}
	switch len(found) {
	case 0:
		return r, fmt.Errorf("the line is nowhere%s", s.nearest(r))
	case 1:
		return found[0], nil
	}
	var places []string
	for _, f := range found {
		places = append(places, f.place())
	}
	return r, fmt.Errorf("the line is in several places: %s", strings.Join(places, "; "))
}

// everywhere returns a row for every function that has the row's line.
// The file of the row comes before others: there the function only has another name.
func (s *source) everywhere(r row) []row {
	var own, others []row
	for _, name := range s.names {
		lines := strings.Split(s.files[name], "\n")
		for i, l := range lines {
			if strings.TrimSpace(l) != r.line {
				continue
			}
			moved := r
			moved.file, moved.in = name, functionAt(lines, i)
			if _, err := moved.find(s.files[name]); err != nil {
				continue
			}
			if name == r.file {
				own = append(own, moved)
			} else {
				others = append(others, moved)
			}
		}
	}
	if len(own) > 0 {
		return own
	}
	return others
}

// followTest gives the row the package that its test is in: that of its file, the one it was tested
// in, or the only one that has such a test.
func (s *source) followTest(r row, tested string) (row, error) {
	top, _, _ := strings.Cut(r.test, "/")
	own := path.Dir(r.file)
	var found []string
	for dir, tests := range s.tests {
		if tests[top] {
			found = append(found, dir)
		}
	}
	switch {
	case s.tests[own][top] && r.pkg == "":
		return r, nil
	case s.tests[tested][top]:
		return r.testedIn(tested, own), nil
	case s.tests[own][top]:
		return r.testedIn(own, own), nil
	case len(found) == 1:
		return r.testedIn(found[0], own), nil
	case len(found) == 0:
		return r, errors.New("no package has the test " + top)
	}
	return r, fmt.Errorf("several packages have a test %s, and neither %s nor %s is one of them", top, own, tested)
}

// testedIn names the package of the test where that is not the package of the file.
func (r row) testedIn(dir, own string) row {
	switch dir {
	case own:
		r.pkg = ""
	case ".":
		r.pkg = "."
	default:
		r.pkg = "./" + dir
	}
	return r
}
