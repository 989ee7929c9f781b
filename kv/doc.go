// Package kv keeps small records of a program in its cluster, on every node: feature flags,
// sessions, a job's cursor, who is present. [github.com/flotilla-ha/flotilla.Node.KV] returns a
// [Store] for a bucket of entries. Buckets need no creation, and share no keys.
//
// # Guarantees
//
//   - Writes are linearizable. A write returns when it is committed and every node that has a lease
//     has applied it.
//   - Reads come from this node's memory. They are never older than the last completed write. A
//     node without a lease tries to get one for two seconds, once; after that it answers with what
//     it has, and returns flotilla.ErrNotReady for a key that it does not have.
//   - The version of an entry is the index of the log entry that wrote it. So it rises with every
//     write, and no two writes have the same one, except those of one [Store.Txn].
//   - [Store.Txn] is all or nothing, in one entry of the log.
//   - [Store.Watch] yields the present entries and then each change, in order.
//   - An entry with [Options].TTL does not expire early. The leader's elapsed time counts, from the
//     moment when the leader has applied the write. A new leader begins to count again.
//   - An entry with [Options].Session is deleted in the same step that ends its node's session.
//   - A write with the context of Node.Hold takes effect only while the role is held. Otherwise its
//     error wraps flotilla.ErrLost.
//
// # Limits
//
// A key is UTF-8 text of 1 to 1,024 bytes. A bucket's name has 1 to 64 bytes, and no zero byte. A
// value, and all of a Txn, has at most 1 MiB. All buckets together have Config.MaxRecords bytes.
// They have a budget of their own: a full one stops neither certificates nor locks and roles.
//
// This is no database. Every node holds all of it in memory, and every write goes through the log.
//
// # Limits of a rate
//
// [Store.Limiter] returns a [Limiter], which says how often something may happen on all nodes
// together. It stores nothing. Its comment says how exact it is.
package kv
