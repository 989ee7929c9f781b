package notify

import "context"

// Beside runs f on a goroutine of its own. The context that f gets ends with ctx, or when the
// caller calls stop. stop also waits until f has returned.
func Beside(ctx context.Context, f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
