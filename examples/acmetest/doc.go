// Package acmetest tests what a cluster does with a certificate authority that is as strict as the real ones: Pebble, which is
// the ACME server that Let's Encrypt tests clients with. It has tests and nothing to import.
//
// certmagic keeps the challenges that it solves in variables of the process, so nodes in one process would answer for each other
// whatever the cluster does. Here each node is a process, this test's own binary, with a directory and a loopback address of its
// own. All nodes listen on the same ports, and the authority asks a name server of ours which of the addresses a name has: a
// balancer without a balancer, which can be told to send the authority to one node and not to another.
//
// Pebble v2.10.1 has a data race where an order replaces a certificate: with -race these tests may fail for it.
package acmetest
