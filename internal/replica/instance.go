package replica

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Instance is one run of raft. A node starts another one after its disk has failed.
type Instance struct {
	*raft.Raft
	stop context.CancelFunc // ends the goroutines that watch it
	once sync.Once
	done chan struct{} // closed when raft's goroutines have ended

	reloading sync.Mutex    // held while raft's configuration is read and written
	usual     time.Duration // what setTimeout was called with last
	pins      int           // calls of pinTimeout that have not ended
}

// reload changes raft's configuration. Goroutines that change different parts of it take turns.
// Otherwise one of them would write back what another has just replaced.
func (i *Instance) reload(change func(c *raft.ReloadableConfig)) error {
	i.reloading.Lock()
	defer i.reloading.Unlock()
	return i.reloadLocked(change)
}

func (i *Instance) reloadLocked(change func(c *raft.ReloadableConfig)) error {
	c := i.ReloadableConfig()
	change(&c)
	return i.ReloadConfig(c)
}

// setTimeout sets raft's election timeout, as soon as it is not pinned.
func (i *Instance) setTimeout(timeout time.Duration) error {
	i.reloading.Lock()
	defer i.reloading.Unlock()
	if i.usual = timeout; i.pins > 0 {
		return nil
	}
	return i.reloadLocked(timeoutOf(timeout))
}

// pinTimeout keeps raft's election timeout at a value until end is called, which returns why raft
// does not take the usual one again.
func (i *Instance) pinTimeout(timeout time.Duration) (end func() error, err error) {
	i.reloading.Lock()
	defer i.reloading.Unlock()
	if err := i.reloadLocked(timeoutOf(timeout)); err != nil {
		return nil, err
	}
	i.pins++
	return func() error {
		i.reloading.Lock()
		defer i.reloading.Unlock()
		if i.pins--; i.pins > 0 || i.usual == 0 {
			return nil
		}
		return i.reloadLocked(timeoutOf(i.usual))
	}, nil
}

func timeoutOf(timeout time.Duration) func(*raft.ReloadableConfig) {
	return func(c *raft.ReloadableConfig) { c.HeartbeatTimeout, c.ElectionTimeout = timeout, timeout }
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
