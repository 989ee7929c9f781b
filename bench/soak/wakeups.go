//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
)

// readers is the number of reads from a stopped node. The kernel accepts their connections, and
// keeps their requests until the node wakes.
const readers = 8

// wakeups stops one node after another, overwrites a value through another node until that is
// acknowledged, and sends requests to the stopped node, which it answers when it wakes. If it says
// that it has a lease, its answers must not be older than the write. It must not claim a session or
// a role that the others know to be over.
func wakeups(ctx context.Context, c *cluster, events int) error {
	for i := 0; i < events && ctx.Err() == nil; i++ {
		if err := c.wakeup(ctx, i); err != nil {
			return fmt.Errorf("wake-up %d: %w", i, err)
		}
		c.report.count("wakeups")
	}
	return ctx.Err()
}

func (c *cluster) wakeup(ctx context.Context, i int) error {
	const key = "soak/wakeup"
	stopped := c.rng.IntN(nodes)
	victim, other := c.nodes[stopped], c.nodes[(stopped+1+c.rng.IntN(nodes-1))%nodes]
	old, value := fmt.Sprint("old ", i), fmt.Sprint("new ", i)
	if err := c.write(ctx, other, key, old); err != nil {
		return err
	}
	if err := victim.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	defer victim.signal(syscall.SIGCONT)
	if !pause(ctx, c.between(0, 300*time.Millisecond)) {
		return nil
	}
	if err := c.write(ctx, other, key, value); err != nil {
		return err
	}
	known, err := c.status(ctx, other)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() { c.checkRead(ctx, victim, key, value) })
	}
	wg.Go(func() { c.checkStatus(ctx, victim, known) })
	// Now all requests are in the queues of the kernel.
	if !pause(ctx, c.between(20*time.Millisecond, 100*time.Millisecond)) {
		return nil
	}
	if err := victim.signal(syscall.SIGCONT); err != nil {
		return err
	}
	wg.Wait()
	return c.awaitReady(ctx)
}

func (c *cluster) checkRead(ctx context.Context, victim *node, key, want string) {
	got, err := c.read(ctx, victim, key)
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil:
		c.report.violate("%s does not answer a read after it woke: %v", victim.name, err)
	case got.Value == want:
		c.report.count("reads with the newest value")
	case got.ClaimedBefore || got.ClaimedAfter:
		c.report.violate("%s answers %q, %s, after %q was acknowledged, and says that it has a lease (before %v, after %v)",
			victim.name, got.Value, got.Err, want, got.ClaimedBefore, got.ClaimedAfter)
	default:
		c.report.count("reads with an old value, without a claim to a lease")
	}
}

// checkStatus asks a waking node for its status. Known is what another node said before.
func (c *cluster) checkStatus(ctx context.Context, victim *node, known flotilla.Status) {
	body, err := c.get(ctx, victim, "/status")
	var got flotilla.Status
	if err == nil {
		err = json.Unmarshal(body, &got)
	}
	if err != nil {
		if ctx.Err() == nil {
			c.report.violate("%s says no status after it woke: %v", victim.name, err)
		}
		return
	}
	if (got.Ready || got.Lease.Held) && got.Index < known.Index {
		c.report.violate("%s says that it has a lease (ready %v, lease %v) at index %d, after others have acknowledged %d without it",
			victim.name, got.Ready, got.Lease, got.Index, known.Index)
	}
	for _, role := range got.Roles {
		for _, now := range known.Roles {
			if role.Name == now.Name && role.Holder == got.ID && role.Fence < now.Fence {
				c.report.violate("%s says that it holds %s with fence %d, after %s got it with fence %d", victim.name, role.Name, role.Fence, now.Holder, now.Fence)
			}
		}
	}
	c.report.count("statuses")
}
