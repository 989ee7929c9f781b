//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/freeport"
)

const (
	members   = 3
	domain    = "mixed.test"
	lookEvery = time.Second
	restTime  = time.Second // between two nodes that are replaced
)

// cluster is three nodes, and clients of them.
type cluster struct {
	programs
	dir    string
	nodes  []*node
	report *report
	load   *load
	watch  func() // ends the watch over the nodes
}

// newCluster starts a cluster in a directory. present says which program a node runs.
func newCluster(ctx context.Context, p programs, dir string, r *report, present func(i int) bool) (*cluster, error) {
	c := &cluster{programs: p, dir: dir, report: r}
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	for i, n := range c.nodes {
		if err := n.start(p, present(i)); err != nil {
			c.close()
			return nil, err
		}
	}
	if err := c.awaitReady(ctx); err != nil {
		c.close()
		return nil, err
	}
	var https []string
	for _, n := range c.nodes {
		https = append(https, n.addrs.https)
	}
	c.load = startLoad(ctx, domain, https, r)
	c.watch = c.startWatch(ctx)
	return c, nil
}

// prepare makes the nodes, and starts none.
func (c *cluster) prepare(ctx context.Context) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	if _, err := run(ctx, c.dir, c.command, "keygen", "-out", c.secretFile()); err != nil {
		return err
	}
	secret, err := os.ReadFile(c.secretFile())
	if err != nil {
		return err
	}
	const ports = 4 // of a node
	addrs, err := freeport.Addrs(members * ports)
	if err != nil {
		return err
	}
	peers := addrs[:members]
	for i := range members {
		own := addrs[members+i*(ports-1):]
		n := &node{fail: c.report.fail, settings: settings{
			Name: fmt.Sprintf("n%d", i), Dir: filepath.Join(c.dir, fmt.Sprint(i)), Secret: strings.TrimSpace(string(secret)),
			Peers: peers, Addr: peers[i], HTTPS: own[0], HTTP: own[1], Health: own[2], Domain: domain,
		}}
		n.addrs.https, n.addrs.health = own[0], own[2]
		if n.log, err = openLog(c.dir, n.Name); err != nil {
			return err
		}
		c.nodes = append(c.nodes, n)
	}
	return nil
}

func (c *cluster) secretFile() string { return filepath.Join(c.dir, "secret") }

// startWatch notes nodes that say that they have failed. It returns what ends it.
func (c *cluster) startWatch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, n := range c.nodes {
		all.Go(func() {
			said := ""
			for pause(ctx, lookEvery) {
				s, err := n.look(ctx)
				if err != nil || s.Err == "" || s.Retries || s.Err == said || n.isRefused() {
					continue
				}
				said = s.Err
				n.fail("%s says that it has failed: %s", n.Name, s.Err)
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// close ends the clients, and then the nodes.
func (c *cluster) close() error {
	if c.load != nil {
		c.load.stop()
		c.watch()
	}
	var errs []error
	for _, n := range c.nodes {
		n.kill()
		errs = append(errs, n.log.Close(), c.report.readErrors(n.log.Name()))
	}
	return errors.Join(errs...)
}

// awaitReady waits until all nodes are ready.
func (c *cluster) awaitReady(ctx context.Context) error {
	for _, n := range c.nodes {
		if err := n.await(ctx, "ready", func(s status) bool { return s.Ready }); err != nil {
			return err
		}
	}
	return nil
}

// replace restarts a node by plan, with a program.
func (c *cluster) replace(ctx context.Context, n *node, present bool) error {
	n.stop()
	if err := n.start(c.programs, present); err != nil {
		return err
	}
	return c.awaitReady(ctx)
}

// replaceAll restarts the nodes one after another, with a program.
func (c *cluster) replaceAll(ctx context.Context, present bool) error {
	for _, n := range c.nodes {
		if err := c.replace(ctx, n, present); err != nil {
			return err
		}
		pause(ctx, restTime)
	}
	return nil
}

// upgrade runs "flotilla upgrade", and returns what it says.
func (c *cluster) upgrade(ctx context.Context) (string, error) {
	return run(ctx, c.dir, c.command, "upgrade", "-secret-file", c.secretFile(), "-peers", strings.Join(c.nodes[0].Peers, ","))
}

// versions returns the cluster version, and what the programs of the two releases support. The
// nodes run both. If the previous release does not say what it supports, another node knows.
func (c *cluster) versions(ctx context.Context) (version, previous, present uint64, err error) {
	for _, n := range c.nodes {
		if !n.present {
			continue
		}
		s, err := n.look(ctx)
		if err != nil {
			return 0, 0, 0, err
		}
		version = s.Version
		for _, m := range s.Members {
			for _, other := range c.nodes {
				if other.Name != m.Name {
					continue
				}
				if other.present {
					present = m.Supports
				} else {
					previous = m.Supports
				}
			}
		}
	}
	return version, previous, present, nil
}
