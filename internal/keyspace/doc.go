// Package keyspace knows the names in the state: keys of records, roles and locks.
//
// A key is a path with slashes. [Clean] gives it one form, and [Tree] the form that it has in the
// state. certmagic and flotilla keep certificates below a few names. [Misplaced] refuses keys that
// would stand in their way. A name also decides which [Budget] a record or a claim counts against.
//
// The package has no state and does no I/O.
package keyspace
