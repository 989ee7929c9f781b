package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mutant is a row whose line was found in the source.
type mutant struct {
	row
	id     int // from 1
	number int // of the line in the file
}

// name identifies a mutant in the output.
func (m *mutant) name() string { return fmt.Sprintf("%s:%d", m.file, m.number) }

// load finds all rows in the source at root. Its error names every row that does not apply.
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

// find finds the line of the row in the text of a file.
func (r row) find(content string) (*mutant, error) {
	if err := r.check(); err != nil {
		return nil, err
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
			return nil, fmt.Errorf(
				"the line is there twice, as %d and %d: name its function, or choose another line", found+1, i+1)
		}
		found = i
	}
	if found < 0 {
		return nil, errors.New("there is no such line any more: give the row the line that has its purpose now")
	}
	return &mutant{row: r, number: found + 1}, nil
}

// check returns what the row lacks.
func (r row) check() error {
	if r.line == r.mutant || r.test == "" || r.guard == "" {
		return errors.New("the row changes nothing, or names no test or no guard")
	}
	return nil
}

// function returns the range of lines of the only function or method with this name.
func function(lines []string, name string) (from, to int, err error) {
	from = -1
	for i, l := range lines {
		if functionName(l) != name {
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

// functionName returns the name of the function or method that begins in a line; empty: none does.
func functionName(line string) string {
	rest, ok := strings.CutPrefix(line, "func ")
	if !ok {
		return ""
	}
	if strings.HasPrefix(rest, "(") {
		_, rest, _ = strings.Cut(rest, ") ")
	}
	return rest[:max(strings.IndexAny(rest, "(["), 0)]
}
