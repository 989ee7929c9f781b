package main

import "slices"

// table returns all rows.
func table() []row {
	return slices.Concat(stateRows(), leaseRows(), membershipRows(), storageRows(), addressRows(), servingRows(), copyRows())
}

// m makes a row: the guard, the test that must fail without it, the file and the function that the guard is in, its line, and what that becomes.
func m(guard, test, file, in, line, mutant string) row {
	return row{guard: guard, test: test, file: file, in: in, line: line, mutant: mutant}
}

// of says that the test is in another package than the file.
func (r row) of(pkg string) row {
	r.pkg = pkg
	return r
}

// slow says that the test sees the mutant without -short only.
func (r row) slow() row {
	r.long = true
	return r
}
