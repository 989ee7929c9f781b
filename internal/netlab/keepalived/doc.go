// Package keepalived runs keepalived on the nodes of a laboratory, to compare flotilla with it.
//
// The configuration is that of an expert: one instance per address, priorities that shift by one
// from node to node, and a file that tells keepalived at once that the program beside it has died.
// (keepalived can track processes itself, but the kernel interface for that does not exist in
// network namespaces. A file that a supervisor writes is as fast.)
//
// It needs Linux. Elsewhere the package is empty.
package keepalived
