// Package rotation replaces the secret and the data keys of a running cluster, and evicts nodes
// whose machines were taken over.
//
// # Parts
//
// A [Keeper] is the part of each node. It has the node follow what the cluster has decided: which
// secrets it proves itself with and accepts, and what it must not have on its disk any more. Then
// it tells the leader that it has done so, in its [state.Member]. A [Driver] is the part of the
// leader: it takes the next step when every member has acknowledged the one before.
//
//	secret    AcceptSecret ─► UseSecret ─► DropSecrets ─► all disks are clean
//	data      RotateKeys ─► all disks are clean ─► ForgetKeys ─► all disks are clean
//	evict     EvictMember ─► removed ─► secret ─► data ─► ShutOut ─► certificates ─► EndEviction
//
// # Guarantees
//
//   - Each step is a command in the log, whose condition the state machine checks. So a step can be
//     asked for again, by anybody, after any interruption.
//   - A step waits for every member. A node that is away delays the next one until it is back or
//     removed; it never finds itself unable to read what it has.
//   - An eviction ends when nothing that the node knew opens or proves anything. Until the secret
//     is another one, the node can prove itself, so nobody joins.
//   - "Clean" means that nothing is on a node's disk that was sealed before, as far as the file
//     system and the disk overwrite in place.
//
// # Assumptions
//
// The operator gives the new secret to every node, by its configuration: the cluster never sends or
// stores it. Copies that others made before, backups among them, open with what sealed them.
package rotation
