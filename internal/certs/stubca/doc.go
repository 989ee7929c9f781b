// Package stubca has what stands in for the world around certificates in tests: a counted issuer
// that can fail, and a network in which nobody answers. An authority that speaks ACME is in package
// clustertest/testca.
//
// Nothing in it opens a socket, so tests in a synctest bubble can use all of it. It does not import
// package certs: tests of that package and tests of whole nodes share it.
package stubca
