// Package netlab is a laboratory for floating addresses. Nodes and clients are network namespaces
// of one machine, connected by a bridge. A test switches faults on and off, and instruments record
// who owns an address and whether clients are served.
//
// A [Lab] has hosts: nodes, which run programs, and clients, which watch. Every host is a network
// namespace with one interface, eth0. The other end of the interface is a port of the bridge. Node
// 0 is 10.77.0.11 and fd77::11, node 1 is 10.77.0.12 and fd77::12. Clients count from 101. Programs
// run in a host by [Host.Start].
//
// Faults concern machines ([Host.Freeze], [Process.Kill]), their links ([Host.LinkDown],
// [Host.Cut]) and the network between them ([Lab.Partition], [Host.CutSending],
// [Host.CutReceiving]).
//
// Instruments are [Watcher] and [Probe]. A Watcher records who has an address: in the kernels, from
// netlink, and on the wire, from the answers to ARP and neighbour discovery. A Probe records what a
// client gets: it asks every few milliseconds, and notes who answered when.
//
// Inside, a host consists of parts that do not know each other: its link to the bridge, the faults
// of the network, and its programs. What needs no lab has packages of its own below this one.
//
// The laboratory needs Linux and root. Elsewhere [Available] says why there is none. Only control
// groups are mounted or named: file descriptors and processes hold the namespaces, which vanish
// with them. [New] removes what a lab has left whose process was killed.
package netlab
