// Package ops answers the requests of operators: for the status of nodes, for changes of members,
// leadership and roles, and for records.
//
// Package remote declares the messages and the client. The clients are programs that are not
// members. They have proved to the transport that they know the secret, and are trusted for that.
//
// # Guarantees
//
//   - Every node answers every request. The leader carries out what only the leader can, and a node
//     is drained by itself. A request that a member has passed on is not passed on again.
//   - A refusal says what is wrong and what to do. It is final: the same request gets the same
//     answer until something changes. An error means that another attempt may succeed.
//   - A repeated request whose first answer was lost does no harm.
//   - A removal leaves a majority of the remaining voters present.
//
// # Assumptions
//
// The transport bounds each request in time and size, and cancels its context when the client has
// gone.
//
// # Flow
//
//	request → decode → the leader, another node or this node → membership or roles → Answer
package ops
