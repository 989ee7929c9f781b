package main

import "slices"

// table returns all rows.
func table() []row {
	return slices.Concat(
		stateRows(), leaseRows(), membershipRows(), storageRows(), addressRows(), servingRows(), copyRows(), logRows(), incarnationRows(), rotationRows(), evictionRows(), rekeyRows(), operatorRows(), recordRows(), limitRows(),
	)
}
