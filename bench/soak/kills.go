//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	writers       = 6
	keysPerWriter = 40
)

// kills ends, stops and restarts nodes at random moments while writers and readers use all of them.
// Afterwards no acknowledged write may be lost, and the states of the nodes must be equal.
func kills(ctx context.Context, c *cluster, events int) error {
	load, stop := context.WithCancel(ctx)
	l := newLedger()
	var wg sync.WaitGroup
	for w := range writers {
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), uint64(w)))
		wg.Go(func() { c.keepWriting(load, l, rng) })
	}
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), writers))
	wg.Go(func() { c.keepReading(load, l, rng) })
	err := c.hurt(ctx, events)
	stop()
	wg.Wait()
	if err == nil {
		err = c.awaitReady(ctx)
	}
	if err == nil {
		err = c.checkWrites(ctx, l)
	}
	return err
}

// hurt injects faults into one node, and sometimes into two or all, one after another.
func (c *cluster) hurt(ctx context.Context, events int) error {
	for done := 0; done < events; {
		victims := 1
		if dice := c.rng.IntN(20); dice == 0 {
			victims = nodes
		} else if dice < 4 {
			victims = 2
		}
		victims = min(victims, events-done)
		var undo []func() error
		for _, i := range c.rng.Perm(nodes)[:victims] {
			after, err := c.hurtOne(c.nodes[i])
			if err != nil {
				return err
			}
			undo = append(undo, after)
			if !pause(ctx, c.between(0, 200*time.Millisecond)) {
				break
			}
		}
		pause(ctx, c.between(0, 1200*time.Millisecond))
		for _, f := range undo {
			if err := f(); err != nil {
				return err
			}
			pause(ctx, c.between(0, 200*time.Millisecond))
		}
		done += victims
		c.report.add("kills", victims)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if c.rng.IntN(3) > 0 { // else the next fault comes while they recover
			if err := c.awaitReady(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// hurtOne injects a fault into a node. The function that it returns undoes the fault.
func (c *cluster) hurtOne(n *node) (undo func() error, err error) {
	switch c.rng.IntN(4) {
	case 0:
		c.report.count("SIGSTOP")
		return func() error { return n.signal(syscall.SIGCONT) }, n.signal(syscall.SIGSTOP)
	case 1:
		c.report.count("SIGTERM")
		running := n.Cmd.Process
		err := running.Signal(syscall.SIGTERM)
		return func() error {
			late := time.AfterFunc(stepTimeout, func() { running.Kill() })
			if err := n.Wait(); err != nil {
				c.report.count("orderly ends that were not complete")
			}
			if !late.Stop() {
				c.report.violate("%s has not ended %v after SIGTERM", n.name, stepTimeout)
			}
			return n.Start()
		}, err
	default:
		c.report.count("SIGKILL")
		n.Kill()
		return n.Start, nil
	}
}

// ledger has the writes of each key. A key has one writer, which writes one number after another.
// It stops after a write with an unknown outcome, because that write may still happen.
type ledger struct {
	mu           sync.Mutex
	keys         []string
	acked, tried map[string]int
}

func newLedger() *ledger { return &ledger{acked: make(map[string]int), tried: make(map[string]int)} }

func (l *ledger) newKey() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := fmt.Sprintf("soak/kills/%d", len(l.keys))
	l.keys = append(l.keys, key)
	return key
}

// anyKey returns a key and its last acknowledged number; 0: none.
func (l *ledger) anyKey(rng *rand.Rand) (key string, acked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.keys) == 0 {
		return "", 0
	}
	key = l.keys[rng.IntN(len(l.keys))]
	return key, l.acked[key]
}

func (l *ledger) next(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tried[key]++
	return l.tried[key]
}

func (l *ledger) ack(key string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[key] = n
}

func (c *cluster) keepWriting(ctx context.Context, l *ledger, rng *rand.Rand) {
	keys := make([]string, keysPerWriter)
	for i := range keys {
		keys[i] = l.newKey()
	}
	for ctx.Err() == nil {
		i := rng.IntN(len(keys))
		n := l.next(keys[i])
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := c.write(attempt, c.nodes[rng.IntN(nodes)], keys[i], strconv.Itoa(n))
		cancel()
		switch {
		case err == nil:
			l.ack(keys[i], n)
			c.report.count("writes acknowledged")
		case errors.Is(err, syscall.ECONNREFUSED): // no node has received it
			c.report.count("writes refused")
		default:
			c.report.count("writes whose outcome is not known")
			keys[i] = l.newKey()
		}
		pause(ctx, time.Duration(rng.IntN(20))*time.Millisecond)
	}
}

// keepReading looks for reads that are older than a write that was acknowledged before they began.
func (c *cluster) keepReading(ctx context.Context, l *ledger, rng *rand.Rand) {
	for ctx.Err() == nil {
		n := c.nodes[rng.IntN(nodes)]
		key, acked := l.anyKey(rng)
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		got, err := c.read(attempt, n, key)
		cancel()
		if err != nil || acked == 0 {
			pause(ctx, 5*time.Millisecond)
			continue
		}
		value, _ := strconv.Atoi(got.Value)
		switch {
		case value >= acked:
			c.report.count("reads with the newest value")
		case got.ClaimedBefore && got.ClaimedAfter:
			c.report.violate("%s answers %d for %s (%s), after %d was acknowledged, and says that it has a lease", n.name, value, key, got.Err, acked)
		default:
			c.report.count("reads with an old value, without a claim to a lease")
		}
	}
}

// checkWrites compares the records of every node with the acknowledged writes, and the nodes with
// each other.
func (c *cluster) checkWrites(ctx context.Context, l *ledger) error {
	for _, key := range l.keys { // the writers have ended
		acked, tried := l.acked[key], l.tried[key]
		for _, n := range c.nodes {
			got, err := c.read(ctx, n, key)
			if err != nil {
				return err
			}
			if value, _ := strconv.Atoi(got.Value); value < acked || value > tried {
				c.report.violate("%s has %q for %s (%s): %d was acknowledged, %d tried", n.name, got.Value, key, got.Err, acked, tried)
			}
		}
	}
	// A node without a lease may be some entries behind. Only a lasting difference counts.
	var differs string
	for range 100 {
		first := ""
		differs = ""
		for _, n := range c.nodes {
			digest, err := c.get(ctx, n, "/digest")
			if err != nil {
				return err
			}
			if first == "" {
				first = string(digest)
			} else if string(digest) != first {
				differs = n.name
			}
		}
		if differs == "" {
			return nil
		}
		pause(ctx, 100*time.Millisecond)
	}
	c.report.violate("%s has another state than %s", differs, c.nodes[0].name)
	return nil
}
