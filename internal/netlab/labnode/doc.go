// Package labnode runs flotilla in a laboratory of package netlab: on each node a program with
// floating addresses.
//
// It needs Linux. Elsewhere only Main exists, and does nothing.
package labnode
