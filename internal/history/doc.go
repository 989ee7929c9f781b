// Package history distinguishes two logs that raft takes for the same.
//
// # The problem
//
// raft compares entries by index and term alone. That is enough while no voter forgets anything:
// two logs with an entry of the same index and term are then equal up to that entry. But a voter
// whose directory was restored from an older copy has forgotten entries and votes. It may help to
// elect a leader that lacks acknowledged entries. The same indices are then assigned a second time,
// perhaps in the same term. raft continues with different logs, or replaces entries that were
// acknowledged and applied.
//
// # Guarantees
//
// A [Sum] is a checksum of all content of a log up to an entry. [Log] knows the sums of the entries
// in a raft log. [Log.Compare] finds the first entry that contradicts another log.
// [Log.DeleteRange] never lets raft take away an entry that was applied.
//
// # Assumptions
//
// Sums find accidents, not attacks. Entries that raft writes for itself have no content and do not
// count. No state machine sees them. So the state machine computes the same sums from the entries
// that it applies.
//
// # Flow
//
//	leader: Sum at the entry before ─► AppendEntries, InstallSnapshot ─► follower: Compare ─► raft
//
// Snapshots carry the sum too, so that it can be compared wherever two nodes meet.
package history
