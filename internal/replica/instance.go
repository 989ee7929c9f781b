package replica

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// Instance is one run of raft. A node starts another one after its disk has failed.
type Instance struct {
	*raft.Raft
	stop context.CancelFunc // ends the goroutines that watch it
	once sync.Once
	done chan struct{} // closed when raft's goroutines have ended

	reloading sync.Mutex // held while raft's configuration is read and written
}

// reload changes raft's configuration. Goroutines that change different parts of it take turns.
// Otherwise one of them would write back what another has just replaced.
func (i *Instance) reload(change func(c *raft.ReloadableConfig)) error {
	i.reloading.Lock()
	defer i.reloading.Unlock()
	c := i.ReloadableConfig()
	change(&c)
	return i.ReloadConfig(c)
}

// shutdown ends raft, and returns a channel that is closed when it has ended. It may be called
// again. raft's own future answers only once.
func (i *Instance) shutdown() <-chan struct{} {
	i.once.Do(func() {
		end := i.Raft.Shutdown()
		go func() {
			defer close(i.done)
			_ = end.Error() // always nil
		}()
	})
	return i.done
}

// WaitFuture waits for a future of raft until ctx ends. raft's futures know no contexts, and some
// of them are never answered; the goroutine that waits ends when raft does.
func WaitFuture(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
