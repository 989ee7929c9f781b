// Package view is the model behind "flotilla status" and the status page: a cluster as its nodes
// describe it, and what there is to say about it.
//
// New joins the descriptions of all nodes into a Cluster. What concerns the cluster as a whole
// comes from one description: that of the leader, or without a leader that of the node that knows
// most.
//
// # Guarantees
//
//   - All who show a cluster say the same of it: the words and the grades are made here. Tables,
//     colours and pages are made by those who show it.
//   - A node that says nothing is in the Cluster all the same, with the reason.
//   - Remarks, Version, the tolerances and errors are safe to print, whatever nodes have said.
//     Other texts are as nodes gave them: pass them through plaintext.Safe.
//   - The package asks no node and reads no clock.
//
// # Assumptions
//
// A node that has the cluster's secret describes itself honestly. A description may be older than
// another, and of an earlier or later version of flotilla.
//
// # Flow
//
//	remote.StatusReply ─► New ─► Cluster ─► Nodes, Roles, Certificates, Space
//	                                   ├──► Remarks, Health, Fault, Tolerance
//	                                   └──► JSON
//
// Package viewtest has clusters in all sorts of states for tests of those who show them.
package view
