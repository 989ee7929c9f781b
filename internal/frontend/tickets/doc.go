// Package tickets seals and opens TLS session tickets, so that a client can resume its session with
// another node than the one that it began with (RFC 8446, 2.2; RFC 5077).
//
// # Flow
//
// The replicated state holds the keys: next, current and two previous ones. A node's Sealer follows
// them. It seals with the current key and opens with each of them. The leader rotates the keys when
// Sealer.Due says so: next becomes current, and there is a new next. It waits until every node has
// the keys that it rotates. A key seals for one period and opens for three.
//
// # Guarantees
//
//   - No node meets a ticket of the cluster whose key it does not have.
//   - A node that was cut off for two rotations still gives out tickets that the others can open.
//   - A ticket opens only for the server name that it was given for, and under the same demands on
//     the client.
//   - A node that may not know the newest keys opens no ticket.
//   - Tickets of self-signed certificates open nothing, so that clients do not keep such a
//     certificate.
//
// # Assumptions
//
// The clock may be wrong. Then keys are rotated at most clockShare times in a period.
package tickets
