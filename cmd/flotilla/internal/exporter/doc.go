// Package exporter writes the records of a cluster to a directory of certmagic's FileStorage.
//
// Keys come from the network, and other programs may change the directory meanwhile. So Target
// writes nothing outside the directory, whatever a key says, and follows no symbolic link. A file
// is written whole or not at all, so repeating an interrupted run completes it.
package exporter
