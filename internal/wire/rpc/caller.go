package rpc

import (
	"context"
	"net"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// callerKey is the key of the caller, a peertls.Peer, in a context.
type callerKey struct{}

// withCaller is ConnContext of http.Server.
func withCaller(ctx context.Context, nc net.Conn) context.Context {
	if c, ok := nc.(*peerconn.Conn); ok {
		return context.WithValue(ctx, callerKey{}, c.Peer())
	}
	return ctx
}

func callerOf(ctx context.Context) peertls.Peer {
	p, _ := ctx.Value(callerKey{}).(peertls.Peer)
	return p
}

// Caller returns the node ID that the caller has proven. It is empty outside of Config.Handler.
func Caller(ctx context.Context) string { return callerOf(ctx).ID }

// Incarnation returns which run of the caller's process calls. It is empty if it did not say.
func Incarnation(ctx context.Context) string { return callerOf(ctx).Incarnation }
