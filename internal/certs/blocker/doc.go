// Package blocker keeps certmagic's challenge solvers from opening public ports.
//
// certmagic's solvers for HTTP-01 and TLS-ALPN-01 listen on port 80 or 443 to answer by themselves.
// Only if the address is in use do they trust that the process there answers. A node answers every
// challenge on its own listeners. If it serves elsewhere, or has closed its listeners to shut down,
// the solver would open a public port and keep the next process from it.
//
// certmagic has no option against that, and the solvers are made inside the issuer. So the blocker
// occupies a port of loopback that the kernel chooses, closes whatever connects, and makes the
// issuers listen there. Their solvers always find the address in use.
//
// The blocker does not use the node's own listeners, because the order in which a program opens and
// closes these would then matter to orders.
package blocker
