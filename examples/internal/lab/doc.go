// Package lab has a certificate authority with a name server, for clusters on one machine.
package lab
