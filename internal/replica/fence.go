package replica

import (
	"context"
	"errors"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// fenceKey is the key of a *fenced in a context.
type fenceKey struct{}

// fenced says that what is proposed with a context takes effect only while a claim of a session
// holds its role.
type fenced struct {
	by      any // whose session it is
	session uint64
	fence   state.Fence
	outer   *fenced // that of the context around it; nil: there is none
}

// withFence returns a context with a fence of a session. by identifies the node.
func withFence(ctx context.Context, by any, session uint64, fence state.Fence) context.Context {
	outer, _ := ctx.Value(fenceKey{}).(*fenced)
	return context.WithValue(ctx, fenceKey{}, &fenced{by: by, session: session, fence: fence, outer: outer})
}

// applyFences adds the fences of a context to a command. by is the node that proposes it.
func applyFences(ctx context.Context, by any, c *state.Command) error {
	for f, _ := ctx.Value(fenceKey{}).(*fenced); f != nil; f = f.outer {
		if f.by != by {
			return errors.New("the context is that of a tenure of another node")
		}
		if c.Session != 0 && c.Session != f.session {
			return ErrEnded
		}
		c.Session = f.session
		c.Fences = append(c.Fences, f.fence)
	}
	return nil
}
