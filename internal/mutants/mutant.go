package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// row is one mutant as the table has it.
type row struct {
	file   string // from the root of the repository
	in     string // the function that the line is in; empty: the line is the only one of its kind in the file
	line   string // the original line, without the space around it
	mutant string // what it becomes; empty: it is deleted
	test   string // the test that must fail then
	pkg    string // the package of the test; empty: that of the file
	guard  string // what the line is for
	long   bool   // the test sees it without -short only
	hangs  bool   // the test fails by its time-out
}

// mutant is a row that has been found in the source.
type mutant struct {
	row
	id     int // from 1
	number int // of the line in the file
}

// load finds all rows in the source at root. Its error tells of every row that does not apply.
func load(root string, rows []row) ([]*mutant, error) {
	var all []*mutant
	var errs []error
	files := make(map[string]string)
	for _, r := range rows {
		if _, ok := files[r.file]; !ok {
			content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(r.file)))
			if err != nil {
				errs = append(errs, err)
			}
			files[r.file] = string(content)
		}
		m, err := r.find(files[r.file])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s, %q: %w", r.file, r.line, err))
			continue
		}
		m.id = len(all) + 1
		all = append(all, m)
	}
	return all, errors.Join(errs...)
}

// find finds the row's line in a file's content.
func (r row) find(content string) (*mutant, error) {
	if r.line == r.mutant || r.test == "" || r.guard == "" {
		return nil, errors.New("the row changes nothing, or names no test or no guard")
	}
	lines := strings.Split(content, "\n")
	from, to := 0, len(lines)
	if r.in != "" {
		var err error
		if from, to, err = function(lines, r.in); err != nil {
			return nil, err
		}
	}
	found := -1
	for i := from; i < to; i++ {
		if strings.TrimSpace(lines[i]) != r.line {
			continue
		}
		if found >= 0 {
			return nil, fmt.Errorf("the line is there twice, as %d and %d: say which function it is in, or choose another", found+1, i+1)
		}
		found = i
	}
	if found < 0 {
		return nil, errors.New("there is no such line any more: give the row the line that has its purpose now")
	}
	return &mutant{row: r, number: found + 1}, nil
}

// function returns the lines of a function or method.
func function(lines []string, name string) (from, to int, err error) {
	from = -1
	for i, l := range lines {
		if !strings.HasPrefix(l, "func ") || !strings.HasPrefix(l, "func "+name+"(") && !strings.Contains(l, ") "+name+"(") && !strings.HasPrefix(l, "func "+name+"[") {
			continue
		}
		if from >= 0 {
			return 0, 0, fmt.Errorf("there are several functions %s", name)
		}
		from = i
	}
	if from < 0 {
		return 0, 0, fmt.Errorf("there is no function %s", name)
	}
	for to = from; to < len(lines) && lines[to] != "}" && !strings.HasSuffix(lines[from], "}"); to++ {
	}
	return from, min(to+1, len(lines)), nil
}

// where returns the package whose test must fail, as go test takes it.
func (r row) where() string {
	if r.pkg != "" {
		return r.pkg
	}
	return "./" + path.Dir(r.file)
}

// name is how a mutant is called in what is printed.
func (m *mutant) name() string { return fmt.Sprintf("%s:%d", m.file, m.number) }
