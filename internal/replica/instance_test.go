package replica

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// bareInstance starts raft with the timeouts of raft itself.
func bareInstance(t *testing.T) *Instance {
	t.Helper()
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = "a", hclog.NewNullLogger()
	store := raft.NewInmemStore()
	_, trans := raft.NewInmemTransport("a")
	r, err := raft.NewRaft(c, nullFSM{}, store, store, raft.NewInmemSnapshotStore(), trans)
	if err != nil {
		t.Fatal(err)
	}
	i := &Instance{Raft: r, done: make(chan struct{})}
	t.Cleanup(func() { <-i.shutdown() })
	return i
}

// The heartbeats and the snapshots change raft's configuration at the same time. Neither writes
// back what the other has just replaced.
func TestReloadKeepsOtherChanges(t *testing.T) {
	i := bareInstance(t)
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

// While raft's timeout is pinned, another one waits.
func TestPinTimeout(t *testing.T) {
	i := bareInstance(t)
	set := func(timeout time.Duration) {
		t.Helper()
		if err := i.setTimeout(timeout); err != nil {
			t.Fatal(err)
		}
	}
	pin := func(timeout time.Duration) (end func() error) {
		t.Helper()
		end, err := i.pinTimeout(timeout)
		if err != nil {
			t.Fatal(err)
		}
		return end
	}
	unpin := func(end func() error) {
		t.Helper()
		if err := end(); err != nil {
			t.Error(err)
		}
	}
	want := func(timeout time.Duration) {
		t.Helper()
		if c := i.ReloadableConfig(); c.ElectionTimeout != timeout || c.HeartbeatTimeout != timeout {
			t.Errorf("the timeouts are %v and %v, want %v", c.ElectionTimeout, c.HeartbeatTimeout, timeout)
		}
	}
	set(7 * time.Second)
	first := pin(time.Second)
	second := pin(2 * time.Second)
	want(2 * time.Second)
	unpin(first)
	set(8 * time.Second)
	want(2 * time.Second)
	unpin(second)
	want(8 * time.Second)
	if _, err := i.pinTimeout(time.Microsecond); err == nil || !strings.Contains(err.Error(), "HeartbeatTimeout") {
		t.Errorf("raft takes a timeout of a microsecond: %v", err)
	}
	set(9 * time.Second)
	want(9 * time.Second)
}
