// Package rpc carries calls between nodes: HTTP/2 POST requests over authenticated connections.
//
// [Service] is both sides. As a server it hands calls to an http.Handler, which learns the caller
// from [Caller] and [Incarnation]. The bearer of a death notice gets no further than
// Config.DeathNotice. As a client it keeps one connection to each node ([Service.Call]) and short
// ones to addresses ([Service.CallAddr]).
//
// Guarantees. The caller's node ID is proven, and so is that of the node that answers. A call is
// sent at most once: after an error, except one from dialling, the peer may or may not have carried
// it out. A path that has died is noticed within two timeouts, so a call then ends early: by
// pings, or without them if answers of the node on other connections have been coming.
//
// Limits. A request has at most [MaxRequest] bytes, an answer at most [MaxReply]. The bodies are
// opaque here; each is one message of the package that owns the path.
package rpc
