// Package probe finds out whether a public name leads to this cluster, before an authority is asked
// for a certificate.
//
// An authority accepts only a few failed validations of a name in an hour. An order fails while the
// name still leads to the old machine, or to a balancer that knows no node yet. So the node
// resolves the name, connects to port 443 of its addresses and looks at the certificate there.
//
// A probe sends nothing and believes nothing but what the certificate looks like. A wrong answer
// only makes the node order too early or wait a little.
package probe
