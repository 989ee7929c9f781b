package replica

import (
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// The heartbeats and the snapshots change raft's configuration at the same time. Neither writes
// back what the other has just replaced.
func TestReloadKeepsOtherChanges(t *testing.T) {
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = "a", hclog.NewNullLogger()
	store := raft.NewInmemStore()
	_, trans := raft.NewInmemTransport("a")
	r, err := raft.NewRaft(c, nullFSM{}, store, store, raft.NewInmemSnapshotStore(), trans)
	if err != nil {
		t.Fatal(err)
	}
	i := &Instance{Raft: r, done: make(chan struct{})}
	defer func() { <-i.shutdown() }()
	var both sync.WaitGroup
	both.Go(func() {
		for n := uint64(1); n <= 5000; n++ {
			err := i.reload(func(c *raft.ReloadableConfig) { c.TrailingLogs = n })
			if got := i.ReloadableConfig().TrailingLogs; err != nil || got != n {
				t.Errorf("%d entries are kept, not %d: %v", got, n, err)
				return
			}
		}
	})
	both.Go(func() {
		for n := range time.Duration(5000) {
			timeout := 2*time.Second + n
			err := i.reload(func(c *raft.ReloadableConfig) { c.HeartbeatTimeout, c.ElectionTimeout = timeout, timeout })
			if got := i.ReloadableConfig().HeartbeatTimeout; err != nil || got != timeout {
				t.Errorf("the timeout is %v, not %v: %v", got, timeout, err)
				return
			}
		}
	})
	both.Wait()
}
