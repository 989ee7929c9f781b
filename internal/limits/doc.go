// Package limits keeps rate limits that all nodes of a cluster share. Each node decides by itself,
// in its memory, and settles with the leader afterwards.
//
// # Guarantees
//
// A limit has a rate and a burst. For each key there is a bucket at the leader, which holds burst
// tokens at most and fills at the rate. A node may owe the leader up to one slice of a key: what it
// has allowed and the leader has not accepted yet. The leader accepts only what the bucket has.
//
//   - In any time t, N nodes together allow at most rate·t + burst + N slices. What they allow is
//     what the leader accepts, and the difference of what they owe at the end and at the beginning.
//   - A new leader begins with full buckets. So each change of the leader may add one burst. A
//     leader that was cut off answers until it notices that, two leases at most. It may add what
//     the rate allows in that time.
//   - A node without a leader forgives itself its debts at rate/N. If no node has a leader, they
//     keep to the rate together. If others have one, the node adds rate/N to what they allow.
//   - A decision takes one lock of this node and no round trip.
//   - At most 65,536 debts are in the memory of a node, and as many buckets in that of the leader.
//     A bucket that is full and a debt that is settled take no memory. Beyond, the smallest of some
//     debts is forgiven, and the fullest of some buckets is filled.
//
// # Assumptions
//
// Nodes that know the cluster's secret are honest. The rate is by the clock of the leader, which
// runs within a hundredth of the right speed.
//
// # Flow
//
//	Limiter.Allow → debts.take: the debt grows, or the answer is no
//	more than half a slice, or a second has passed → Limits.Run: all such debts in one Request
//	rpc.Limit → the leader's ledger: each bucket accepts what it has → Reply → debts.settle
//
// One request of a node is under way at a time. An answer that is lost leaves the debt as it is,
// although the leader has accepted it. So faults of the network make limits stricter, never looser.
package limits
