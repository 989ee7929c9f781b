// Package history tells two logs apart that raft takes for one.
//
// raft compares entries by index and term alone. That is enough as long as no voter forgets: then
// two logs with one entry of the same index and term are equal up to that entry. A voter whose
// directory was restored from an older copy has forgotten entries and votes. It may help to elect
// a leader that lacks acknowledged entries, and the same indices are given away a second time,
// perhaps in the same term. raft then goes on with different logs, or replaces entries that were
// acknowledged and applied.
//
// A [Sum] stands for all content of a log up to an entry. Leaders send it with AppendEntries, and
// snapshots carry it, so that it can be compared wherever two nodes meet. [Log] knows the sums of
// the entries in a raft log, finds the first entry that contradicts another log, and never lets
// raft take away an entry that was applied.
//
// The state machine computes the same sums from what it applies. Entries that it never sees, which
// raft writes for itself, carry no content and do not count.
package history
