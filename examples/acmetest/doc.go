// Package acmetest tests a cluster with a certificate authority that is as strict as the real ones:
// Pebble, the ACME server that Let's Encrypt offers for tests of clients. It has tests and nothing
// to import.
//
// certmagic keeps the challenges that it solves in variables of the process. Nodes in one process
// would therefore answer for each other, whatever the cluster does. Here each node is a process of
// its own, the test binary once more, with its own directory and loopback address. All nodes listen
// on the same ports. The authority asks a name server of the test which address a name has. The
// test can thus send the authority to one node and not to another, without a balancer.
//
// Pebble v2.10.1 has a data race where an order replaces a certificate. With -race these tests may
// fail because of it.
package acmetest
