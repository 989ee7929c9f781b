//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/bench/internal/proc"
	"github.com/flotilla-ha/flotilla/internal/freeport"
)

const (
	nodes       = 3
	stepTimeout = time.Minute // of everything that must happen by itself
)

// cluster is three processes and the means to ask them. One goroutine uses its rng, and starts and
// ends nodes.
type cluster struct {
	nodes  []*node
	rng    *rand.Rand
	report *report
	client *http.Client
	trust  *http.Transport
}

// node is a process of a cluster.
type node struct {
	*proc.Process
	name, http string
	addr       string // that the other nodes dial
	holders    string // the file in which it records the roles that it holds
}

// newCluster starts three nodes.
func newCluster(dir, timing string, rng *rand.Rand, r *report) (*cluster, error) {
	c, err := prepareCluster(dir, timing, rng, r)
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if err := n.Start(); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// prepareCluster makes three nodes, and starts none.
func prepareCluster(dir, timing string, rng *rand.Rand, r *report) (*cluster, error) {
	processes, peers, err := proc.NewCluster(nodes, dir)
	if err != nil {
		return nil, err
	}
	addrs, err := freeport.Addrs(nodes)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c := &cluster{rng: rng, report: r, trust: &http.Transport{MaxIdleConnsPerHost: 16}}
	c.client = &http.Client{Transport: c.trust, Timeout: stepTimeout}
	for i, p := range processes {
		n := &node{Process: p, name: fmt.Sprintf("n%d", i), http: addrs[i], addr: peers[i], holders: filepath.Join(dir, fmt.Sprintf("holders-%d", i))}
		p.Env = append(p.Env, "FLOTILLA_TIMING="+timing, httpVariable+"="+n.http, holdersVariable+"="+n.holders)
		if p.Log, err = os.Create(filepath.Join(dir, n.name+".log")); err != nil {
			c.close()
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		n.Kill()
		n.Log.Close()
	}
	c.trust.CloseIdleConnections()
}

func (n *node) signal(s syscall.Signal) error { return n.Cmd.Process.Signal(s) }

// get makes a request to a node, and returns the body of an answer with status 200.
func (c *cluster) get(ctx context.Context, n *node, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.http+path, nil)
	if err != nil {
		return nil, err
	}
	return c.do(req)
}

func (c *cluster) do(req *http.Request) ([]byte, error) {
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	return body, err
}

func (c *cluster) read(ctx context.Context, n *node, key string) (out read, err error) {
	body, err := c.get(ctx, n, "/read?key="+url.QueryEscape(key))
	if err == nil {
		err = json.Unmarshal(body, &out)
	}
	return out, err
}

func (c *cluster) write(ctx context.Context, n *node, key, value string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.http+"/write?key="+url.QueryEscape(key), bytes.NewBufferString(value))
	if err == nil {
		_, err = c.do(req)
	}
	return err
}

func (c *cluster) status(ctx context.Context, n *node) (s flotilla.Status, err error) {
	body, err := c.get(ctx, n, "/status")
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// awaitReady waits until all nodes are ready.
func (c *cluster) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for _, n := range c.nodes {
		for {
			_, err := c.get(ctx, n, "/readyz")
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s, at http://%s, is not ready after %v: %w", n.name, n.http, stepTimeout, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// pause waits. It returns false if ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// between returns a random time.
func (c *cluster) between(from, to time.Duration) time.Duration {
	return from + time.Duration(c.rng.Int64N(int64(to-from)))
}
