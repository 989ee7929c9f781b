// Package stubca has the certificate authorities of tests, and the world around them: an ACME
// authority in memory, a counted issuer that can fail, and a network in which nobody answers.
//
// Nothing in it opens a socket, so tests in a synctest bubble can use all of it. It does not import
// package certs: tests of that package and tests of whole nodes share it.
package stubca
