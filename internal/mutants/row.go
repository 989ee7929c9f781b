package main

import "path"

// row is one mutant as the table has it.
type row struct {
	file   string // from the root of the repository
	in     string // the function of the line; empty: the file has only one such line
	line   string // the original line, without the space around it
	mutant string // the broken line; empty: the line is deleted
	test   string // the test that must fail then
	pkg    string // the package of the test; empty: that of the file
	guard  string // the purpose of the line
	hangs  bool   // the test fails by its time-out
}

// m makes a row. Its arguments are the guard, the test that must fail without it, the file and the
// function that the guard is in, its line, and the broken line.
func m(guard, test, file, in, line, mutant string) row {
	return row{guard: guard, test: test, file: file, in: in, line: line, mutant: mutant}
}

// of names the package of the test where that is not the package of the file.
func (r row) of(pkg string) row {
	r.pkg = pkg
	return r
}

// where returns the package of the test, in the form that go test takes.
func (r row) where() string {
	if r.pkg != "" {
		return r.pkg
	}
	return "./" + path.Dir(r.file)
}

// place names the file and the function of the row.
func (r row) place() string {
	if r.in == "" {
		return r.file
	}
	return r.file + " " + r.in
}
