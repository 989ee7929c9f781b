// Package lifecycle has what all parts of a node must know about where the node is between its
// opening and its end: whether it is open, takes part in its cluster, or is about to stop.
//
// # States
//
// A node is open until it is closed. While it is open, it works, has a setback, or has failed. A
// setback ends when its cause does, such as a full disk. A failure does not end: the node serves
// what it has in memory until it is closed. A node that works may be leaving, drained or cordoned.
//
// # Guarantees and assumptions
//
// Code that changes Leaving, Drained, Cordoned or Setback calls Changed.Notify after it. Code that
// waits for one of them uses AwaitChanged, or package notify with Changed. The package holds no lock
// while it calls anything.
package lifecycle
