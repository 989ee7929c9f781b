//go:build unix

// Command soak runs clusters of real processes on loopback, injects faults, and checks their
// answers.
//
//	go run ./soak -wakeups 2000 -clusters 4
//	go run ./soak -kills 1000 -clusters 4 -busy
//	go run ./soak -formations 200 -clusters 2
//	go run ./soak -starts 5000 -clusters 2
//
// It prints the seed of its schedule, its progress, and a summary. If a guarantee of flotilla was
// violated it exits with 1, and keeps the directories of that cluster.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/bench/internal/proc"
)

// mode is a kind of faults.
type mode struct {
	name, usage string
	run         func(ctx context.Context, c *cluster, events int) error
	fresh       func(ctx context.Context, c *cluster) error // instead of run: on a new cluster
}

func modes() []mode {
	return []mode{
		{name: "wakeups", usage: "stop a node with SIGSTOP, write elsewhere, ask the stopped node and wake it, so many times", run: wakeups},
		{name: "kills", usage: "so many SIGKILL, SIGSTOP and SIGTERM at random moments, under writers, readers and holders of roles", run: kills},
		{name: "formations", usage: "form so many clusters, with SIGKILL at random moments and wrong addresses that are put right later", fresh: formations},
		{name: "starts", usage: "start so many clusters, and expect each to be ready within 10 s", fresh: starts},
	}
}

func main() {
	if role := os.Getenv(proc.RoleVariable); role != "" {
		os.Exit(runAs(role))
	}
	var (
		clusters = flag.Int("clusters", 1, "the number of clusters, which run at the same time and share the events")
		busy     = flag.Bool("busy", false, "keep twice as many processors busy as there are")
		timing   = flag.String("timing", "lan", "the timing of the nodes: lan, fast, wan or turbo")
		seed     = flag.Uint64("seed", uint64(time.Now().UnixNano()), "the seed of the schedule")
		all      = modes()
		events   = make([]*int, len(all))
	)
	for i, m := range all {
		events[i] = flag.Int(m.name, 0, m.usage)
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Printf("seed %d, timing %s, %d clusters, busy %v, %d processors\n", *seed, *timing, *clusters, *busy, runtime.NumCPU())
	if *busy {
		defer burn(2 * runtime.NumCPU())()
	}
	bad := false
	for i, m := range all {
		if *events[i] > 0 {
			bad = !soak(ctx, m, *events[i], *clusters, *timing, *seed) || bad
		}
	}
	if bad {
		stop()
		os.Exit(1)
	}
}

// soak runs one mode. It returns true if there was no violation.
func soak(ctx context.Context, m mode, events, clusters int, timing string, seed uint64) bool {
	dir, err := os.MkdirTemp("", "soak-"+m.name+"-")
	if err != nil {
		fmt.Println(err)
		return false
	}
	r := newReport(m.name, events)
	began := time.Now()
	stop := r.progress(10 * time.Second)
	var wg sync.WaitGroup
	for i := range clusters {
		share := events / clusters
		if i < events%clusters {
			share++
		}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			home := filepath.Join(dir, fmt.Sprint(i))
			if m.fresh != nil {
				runFresh(ctx, m, share, home, timing, rng, r)
			} else if err := runCluster(ctx, m, share, home, timing, rng, r); err != nil {
				r.violate("cluster %d: %v", i, err)
			} else if !r.bad() {
				os.RemoveAll(home)
			}
		})
	}
	wg.Wait()
	stop()
	r.summary(time.Since(began))
	if r.bad() {
		fmt.Printf("the nodes' directories and logs are in %s\n", dir)
		return false
	}
	os.RemoveAll(dir)
	return true
}

func runCluster(ctx context.Context, m mode, events int, dir, timing string, rng *rand.Rand, r *report) error {
	c, err := newCluster(dir, timing, rng, r)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.awaitReady(ctx); err != nil {
		return err
	}
	if err := m.run(ctx, c, events); err != nil {
		return err
	}
	return c.checkHolders()
}

// runFresh runs a mode that has a cluster for each event. It removes the files of each good event
// at once.
func runFresh(ctx context.Context, m mode, events int, dir, timing string, rng *rand.Rand, r *report) {
	for i := 0; i < events && ctx.Err() == nil; i++ {
		home := filepath.Join(dir, fmt.Sprint(i))
		c, err := prepareCluster(home, timing, rng, r)
		if err == nil {
			err = m.fresh(ctx, c)
			c.close()
		}
		switch {
		case ctx.Err() != nil: // it was interrupted
		case err != nil:
			r.violate("%s: %v", home, err)
			continue
		default:
			r.count(m.name)
		}
		os.RemoveAll(home)
	}
}

// burn starts processes that only use processor time, until stop is called.
func burn(n int) (stop func()) {
	var all []*exec.Cmd
	for range n {
		p := &proc.Process{Env: append(os.Environ(), proc.RoleVariable+"=burn")}
		if err := p.Start(); err == nil {
			all = append(all, p.Cmd)
		}
	}
	return func() {
		for _, cmd := range all {
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
}
