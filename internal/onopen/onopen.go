// Package onopen tells a test which nodes a program opens, and with which configuration. The
// program gets a context from the test, and gives it to flotilla.Open or flotilla.Serve. So a test
// can look at the nodes of a program that keeps them to itself, and the API of the root package
// needs nothing for that.
package onopen

import "context"

// Hooks are functions that Open calls. Both are required. They are called by the goroutine that
// opens the node. This package cannot name the types of the root package.
type Hooks struct {
	// Config is called before anything else with the configuration, a *flotilla.Config, and may
	// change it. Open returns its error.
	Config func(cfg any) error

	// Node is called with the open node, a *flotilla.Node.
	Node func(node any)
}

// key is the key of Hooks in a context.
type key struct{}

// With returns a context with which Open calls h.
func With(ctx context.Context, h Hooks) context.Context { return context.WithValue(ctx, key{}, h) }

// Config calls the hook of ctx for a configuration, if there is one.
func Config(ctx context.Context, cfg any) error {
	if h, ok := ctx.Value(key{}).(Hooks); ok {
		return h.Config(cfg)
	}
	return nil
}

// Node calls the hook of ctx for a node, if there is one.
func Node(ctx context.Context, node any) {
	if h, ok := ctx.Value(key{}).(Hooks); ok {
		h.Node(node)
	}
}
