// Package status declares what a node says of itself and of its cluster: see Node.Status of package
// flotilla. The package is data and nothing else, so that programs can read and show a status
// without a node.
//
// # Guarantees
//
//   - The package imports the standard library only.
//   - A Status survives its JSON form, which other nodes and the flotilla command read. A reader
//     skips a field that it does not know. In the JSON of an older node a newer field is absent: it
//     is then zero, which means "not said" or "all is well".
//   - The methods depend on the value and their arguments alone. None reads a clock.
//
// # Assumptions
//
// Times of other nodes are by their wall clocks, as the comments of the fields say. They are for
// people. Nothing in a cluster is decided by them.
//
// # Flow
//
//	Node.Status ─► Status ─► Node.Watch, the program
//	                  └────► JSON ─► another node ─► the flotilla command
//
// Package flotilla has all these types under names of its own, such as flotilla.Status and
// flotilla.LeaseStatus.
package status
