// Package balancers has configurations of TCP balancers in front of a cluster, and tests that run
// the real balancers with them. It has nothing to import.
//
// Each node is a process of its own, the test binary once more, with its own loopback address.
// HAProxy is at 127.0.0.1 and nginx at another address. All use the same ports, as real machines
// use 443 and 80. The certificate authority knows only the address of HAProxy. The tests change
// nothing in the configurations except addresses, ports and files.
package balancers
