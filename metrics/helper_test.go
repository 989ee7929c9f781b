package metrics_test

import "context"

// exampleContext is that of a program.
func exampleContext() context.Context { return context.Background() }
