// Package view shows a cluster as its nodes describe it.
//
// New joins the descriptions of all nodes into a Cluster. What concerns the cluster as a whole
// comes from one description: that of the leader, or without a leader that of the node that knows
// most. The rest of the package turns a Cluster into text: tables, remarks, JSON, and lines for
// changes. It neither asks a node nor reads a clock.
package view
