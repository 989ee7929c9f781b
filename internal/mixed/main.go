//go:build unix

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	mixing := flag.Duration("for", 0, "how long a cluster is a random mix, under faults")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the random mix")
	present := flag.String("present", "", "the tree of the present program; by default this one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := try(ctx, *mixing, *seed, *present); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

// try builds the programs and runs the clusters.
func try(ctx context.Context, mixing time.Duration, seed uint64, present string) error {
	root, err := repository(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "flotilla-mixed-")
	if err != nil {
		return err
	}
	if present == "" {
		present = root
	}
	r := newReport(os.Stdout)
	r.say("seed %d", seed)
	p, err := build(ctx, root, present, dir)
	if err == nil {
		r.say("both programs are built")
		err = inTurn(ctx, p, filepath.Join(dir, "in-turn"), r)
	}
	if err == nil && mixing > 0 {
		err = mixed(ctx, p, filepath.Join(dir, "mixed"), r, mixing, rand.New(rand.NewPCG(seed, 0)))
	}
	r.say("%s", r.summary())
	if n := r.failed(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d things have happened that must not", n))
	}
	if err != nil {
		return fmt.Errorf("%w\nthe directories and logs are in %s", err, dir)
	}
	return os.RemoveAll(dir)
}

// inTurn upgrades a cluster, downgrades it, and upgrades it again.
func inTurn(ctx context.Context, p programs, dir string, r *report) (err error) {
	c, err := newCluster(ctx, p, dir, r, func(int) bool { return false })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	r.say("three nodes of the previous release run")
	for _, present := range []bool{true, false} {
		if err := c.replaceAll(ctx, present); err != nil {
			return err
		}
		r.say("all nodes are replaced, by the present program: %v", present)
	}
	for _, n := range c.nodes[:members-1] {
		if err := c.replace(ctx, n, true); err != nil {
			return err
		}
	}
	return c.replaceLast(ctx)
}

// fromMix upgrades a cluster that began with one node of the previous release.
func fromMix(ctx context.Context, p programs, dir string, r *report) (err error) {
	c, err := newCluster(ctx, p, dir, r, func(i int) bool { return i < members-1 })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	r.say("two nodes of the present program run, and one of the previous release")
	return c.replaceLast(ctx)
}

// replaceLast has the last node run the present program, as the others do. Then the version is
// raised, and the previous release is refused.
func (c *cluster) replaceLast(ctx context.Context) error {
	version, previous, present, err := c.versions(ctx)
	if err != nil {
		return err
	}
	c.report.say("the cluster has version %d, the previous program supports %d, the present one %d", version, previous, present)
	if version != previous {
		c.report.fail("the cluster has version %d, and the previous program supports %d", version, previous)
	}
	if present > previous {
		c.refuseUpgrade(ctx)
	}
	if err := c.replace(ctx, c.nodes[members-1], true); err != nil {
		return err
	}
	if err := c.raise(ctx, present); err != nil {
		return err
	}
	if present > previous {
		return c.refusePrevious(ctx)
	}
	return nil
}

// refuseUpgrade asks for the next version while the last node is of the previous release.
func (c *cluster) refuseUpgrade(ctx context.Context) {
	said, err := c.upgrade(ctx)
	last := c.nodes[members-1].Name
	if err == nil || !strings.Contains(said, last) {
		c.report.fail("the version is raised while %s runs the previous program: %s", last, said)
	}
}

// raise has the version raised to that of the present program, and waits until each node has it.
func (c *cluster) raise(ctx context.Context, to uint64) error {
	said, err := c.upgrade(ctx)
	if err != nil {
		return err
	}
	c.report.say("%s", said)
	for _, n := range c.nodes {
		if err := n.await(ctx, fmt.Sprintf("in a cluster of version %d", to), func(s status) bool { return s.Ready && s.Version == to }); err != nil {
			return err
		}
	}
	return nil
}

// refusePrevious starts the previous program on a node. It must be refused, and harm nobody.
func (c *cluster) refusePrevious(ctx context.Context) error {
	n := c.nodes[members-1]
	n.refuse(true)
	n.stop()
	if err := n.start(c.programs, false); err != nil {
		return err
	}
	n.expect(true)
	if err := n.await(ctx, "refused", func(s status) bool { return strings.Contains(s.Err, "upgrade") }); err != nil {
		return err
	}
	c.report.say("the previous program is refused")
	n.kill()
	if err := n.start(c.programs, true); err != nil {
		return err
	}
	if err := c.awaitReady(ctx); err != nil {
		return err
	}
	n.refuse(false)
	return nil
}

// mixed runs a cluster as a random mix under faults, one at a time. At the end it is upgraded.
func mixed(ctx context.Context, p programs, dir string, r *report, mixing time.Duration, random *rand.Rand) (err error) {
	either := func() bool { return random.IntN(2) == 0 }
	// At least one founder is of the previous release: else the version would be raised at once.
	c, err := newCluster(ctx, p, dir, r, func(i int) bool { return i > 0 && either() })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	r.say("a random mix runs for %v", mixing)
	end, next := time.Now().Add(mixing), time.Now()
	for time.Now().Before(end) {
		if err := c.fault(ctx, random, either()); err != nil {
			return err
		}
		if !pause(ctx, time.Second+time.Duration(random.Int64N(int64(2*time.Second)))) {
			return context.Cause(ctx)
		}
		if time.Now().After(next) {
			r.say("%s", r.summary())
			next = time.Now().Add(time.Minute)
		}
	}
	if err := c.replaceAll(ctx, true); err != nil {
		return err
	}
	_, _, present, err := c.versions(ctx)
	if err != nil {
		return err
	}
	return c.raise(ctx, present)
}

// fault does something to a random node, and waits until all nodes are ready.
func (c *cluster) fault(ctx context.Context, random *rand.Rand, present bool) error {
	n := c.nodes[random.IntN(members)]
	what := []string{"killed", "stopped for a while", "restarted"}[random.IntN(3)]
	c.report.event(what)
	switch what {
	case "killed":
		n.kill()
		pause(ctx, time.Duration(random.Int64N(int64(5*time.Second))))
		if err := n.start(c.programs, present); err != nil {
			return err
		}
	case "stopped for a while":
		n.freeze(ctx, time.Duration(random.Int64N(int64(8*time.Second))))
	default:
		n.stop()
		if err := n.start(c.programs, present); err != nil {
			return err
		}
	}
	return c.awaitReady(ctx)
}
