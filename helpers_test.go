package flotilla

// leasedAlways is the word of a node that has its lease.
func leasedAlways() bool { return true }
