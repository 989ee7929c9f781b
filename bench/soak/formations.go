//go:build unix

package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// quick is the time in which three undisturbed processes must form a cluster.
const quick = 10 * time.Second

// starts forms a cluster without disturbance, as benchmarks do.
func starts(ctx context.Context, c *cluster) error {
	began := time.Now()
	for _, n := range c.nodes {
		n.Env = append(n.Env, debugVariable+"=1")
		if err := n.Start(); err != nil {
			return err
		}
	}
	if err := c.awaitReady(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	c.report.lasted(took)
	if took > quick {
		return fmt.Errorf("ready after %v", took)
	}
	return nil
}

// formations forms a cluster and disturbs that. In the end there must be one cluster with all
// nodes.
func formations(ctx context.Context, c *cluster) error {
	did := c.misguide()
	for _, n := range c.nodes {
		if err := n.Start(); err != nil {
			return err
		}
		if c.rng.IntN(3) == 0 {
			pause(ctx, c.between(0, 100*time.Millisecond))
		}
	}
	for range 1 + c.rng.IntN(6) {
		pause(ctx, c.between(0, 150*time.Millisecond))
		victims := 1
		if dice := c.rng.IntN(8); dice == 0 {
			victims = nodes
		} else if dice == 1 {
			victims = 2
		}
		for _, i := range c.rng.Perm(nodes)[:victims] {
			n := c.nodes[i]
			n.Kill()
			did = append(did, "kill "+n.name)
			c.report.count("SIGKILL")
			if c.rng.IntN(3) > 0 {
				if err := n.Start(); err != nil {
					return err
				}
			}
		}
	}
	if c.rng.IntN(8) == 0 { // longer than nodes are bound to a formation that they have agreed to
		pause(ctx, c.between(5*time.Second, 15*time.Second))
	}
	began := time.Now()
	for _, n := range c.nodes {
		if slices.Contains(did, wrong(n)) {
			n.Env = append(n.Env, "FLOTILLA_ADVERTISE=")
			n.Kill()
		}
		if n.Cmd == nil {
			if err := n.Start(); err != nil {
				return err
			}
		}
	}
	err := c.awaitReady(ctx)
	if err == nil {
		err = c.isOne(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w (%q)", err, did)
	}
	c.report.lasted(time.Since(began))
	return nil
}

// misguide makes some nodes advertise a wrong address.
func (c *cluster) misguide() (did []string) {
	for i, n := range c.nodes {
		if c.rng.IntN(4) > 0 {
			continue
		}
		address := "127.0.0.1:1"
		if c.rng.IntN(2) == 0 {
			address = c.nodes[(i+1)%nodes].addr
		}
		n.Env = append(n.Env, "FLOTILLA_ADVERTISE="+address)
		did = append(did, wrong(n))
		c.report.count("wrong addresses")
	}
	return did
}

func wrong(n *node) string { return "wrong address of " + n.name }

// isOne checks that all nodes are in the same cluster.
func (c *cluster) isOne(ctx context.Context) error {
	var ids []string
	for _, n := range c.nodes {
		s, err := c.status(ctx, n)
		if err != nil {
			return err
		}
		ids = append(ids, s.Cluster)
	}
	if len(slices.Compact(slices.Clone(ids))) != 1 {
		return fmt.Errorf("there is more than one cluster: %v", ids)
	}
	return nil
}
