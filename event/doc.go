// Package event declares what happens to a node and its cluster, for programs and for operators.
//
// Package flotilla yields Events with Node.Events, the health port serves them, and "flotilla
// events" shows those of all nodes. A line of the log that stands for an event has its kind in the
// attribute "event".
//
// An event of the cluster, such as the end of a session, is recorded by every node that has learned
// of it, under the same Key. An event of one node, such as a refused order, has no Key. So a reader
// that joins the events of several nodes takes those with the same Key for one: see Merge.
//
// A node keeps its newest 256 events, in memory.
package event
