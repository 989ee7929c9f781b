// Package rpc has what all calls between nodes share: their paths, how a handler decodes a body and
// encodes its answer, and which status an error becomes.
//
// A call is a POST over the port of internal/wire, so both sides know each other's node ID from the
// certificate. The body is one [Message]. Its type, with Encode and a decode function, is declared
// by the package that serves the call. [Serve] and [Call] are the two ends. [Bytes] is for handlers
// that decode a body themselves. The calls of operators are declared in internal/remote.
//
// An answer with an error is a status and a text. The caller sees it as a *wire.RPCError.
// [IsRefused] tells such an answer from a peer that could not be reached.
package rpc
