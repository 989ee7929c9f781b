// Package netlab is a laboratory for floating addresses: nodes and clients in network namespaces of one machine, joined by a bridge,
// with faults that can be switched on and off, and instruments that see who owns an address and whether a client is served.
//
// A [Lab] has hosts: nodes, which run programs, and clients, which watch. Every host is a network namespace with one interface, eth0,
// whose other end is a port of the bridge. Node 0 is 10.77.0.11 and fd77::11, node 1 is 10.77.0.12 and fd77::12; clients count from 101. Programs run in a host by [Host.Start].
//
// Faults are those of machines ([Host.Freeze], [Process.Kill]), of their links ([Host.LinkDown], [Host.Cut]) and of the network between
// them ([Lab.Partition], [Host.CutSending], [Host.CutReceiving]).
//
// Instruments: a [Watcher] records who has an address, in the kernels (from netlink) and on the wire (who answers when a client asks by
// ARP or neighbour discovery). A [Probe] records what a client gets: one question every few milliseconds, and who answered it when.
//
// It is Linux's and root's. Elsewhere [Available] says why not. Nothing is mounted or named, but control groups: the namespaces are held by
// file descriptors and processes alone, so they vanish with them, and [New] removes what a lab left behind whose process was killed.
package netlab
