// Package lab holds what the examples and their tests need around a cluster on one machine: a certificate authority with its name server, and
// ports of loopback addresses.
package lab
