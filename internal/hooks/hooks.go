// Package hooks lets a test reach into the nodes that it opens: their configuration, their clocks,
// their disks, and what they report.
//
// Hooks travel in the context of flotilla.Open, as those of net/http/httptrace do in that of a
// request. So the exported configuration has no field for them, and programs cannot set them. What
// opens nodes itself, such as flotilla.Serve, has the hooks of the context that it is given: a test
// also reaches the nodes of a program that keeps them to itself.
package hooks

import (
	"context"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Hooks are what a test changes in a node. The zero Hooks change nothing. The functions are called
// from many goroutines.
type Hooks struct {
	// Config is called before anything else with the configuration, a *flotilla.Config, and may
	// change it. This package cannot name the types of the root package. Open returns its error. It
	// is called by the goroutine that opens the node. Nil: it is not called.
	Config func(cfg any) error

	// Opened is called with the open node, a *flotilla.Node, by the goroutine that opens it. Nil: it
	// is not called.
	Opened func(node any)

	// Rate is that of the clock by which the node measures leases and timeouts: 1.01 is one part in a
	// hundred too fast. It is read when the node is opened. 0: 1.
	Rate float64

	// Ahead returns by how much the node's wall clock is ahead of time.Now. Nil: it is not.
	Ahead func() time.Duration

	// RenewalCheck is how often the node looks whether certificates are to be renewed. 0: as usual.
	RenewalCheck time.Duration

	// Disk changes what the disk does. The zero Faults changes nothing.
	Disk durable.Faults

	// Delay is called before the lease manager looks at the clock. It may block, to play a process
	// that stands still. Nil: it is not called.
	Delay func()

	// Changed is called with the new state when sessions or roles in it have changed. It must not
	// block. Nil: it is not called.
	Changed func(*state.State)
}

type key struct{}

// With returns a context with which Open opens nodes whose hooks change has changed. Hooks that ctx
// has already are not called then.
func With(ctx context.Context, change func(*Hooks)) context.Context {
	return context.WithValue(ctx, key{}, change)
}

// Apply changes h as With has said.
func Apply(ctx context.Context, h *Hooks) {
	if change, ok := ctx.Value(key{}).(func(*Hooks)); ok {
		change(h)
	}
}
