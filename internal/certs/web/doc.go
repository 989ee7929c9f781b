// Package web has the HTTP handlers of the certificates: answers to HTTP-01 challenges, redirects
// to https, and the HSTS header.
//
// Challenges: every node answers those of every order, from the storage. A node without a lease may
// not know a token that another node has just stored, and refuses with 503.
//
// Redirects: a visitor gets the same page of the same host over https, or 400. The Location is
// built from a checked host and from the path and query of the request, so no request can make it
// lead elsewhere.
package web
