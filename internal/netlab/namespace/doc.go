// Package namespace makes network namespaces that look like ordinary hosts.
//
// Nothing is mounted or named. A namespace exists while a file descriptor or a process holds it.
//
// The package needs Linux and root. Elsewhere it is empty.
package namespace
