// Package balancers has configurations of TCP balancers in front of a cluster, and tests that run the real balancers with them. It has
// nothing to import.
//
// Each node is a process, this test's own binary, on a loopback address of its own; HAProxy is at 127.0.0.1 and nginx at another. The ports are
// the same for all, as they would be 443 and 80 on machines, and the certificate authority knows HAProxy's address alone. The tests run
// the configurations beside them with nothing but addresses, ports and files changed.
package balancers
