// Command cloudip moves an address that belongs to a cloud: an API gives it to one machine at a
// time, and no kernel can take it.
//
//	go run ./examples/cloudip
//
// It runs a simulated cloud and three nodes, kills the owner of the address, and shows which node
// gets it. It also shows the purpose of the fence: the cloud refuses a late call of the dead owner.
// To use it with a real cloud, replace assign by a call of its API. Keep the fence where the call
// can be checked against it, for instance in a tag of the address.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/vip"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := demo(ctx, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// cloud gives an address to one machine at a time: to the one with the highest fence.
type cloud struct {
	out io.Writer

	mu    sync.Mutex
	owner string
	fence uint64
	moved chan struct{} // closed at the next move
}

// ServeHTTP answers PUT /address?owner=NAME&fence=NUMBER.
func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fence, err := strconv.ParseUint(r.FormValue("fence"), 10, 64)
	if r.Method != http.MethodPut || err != nil {
		http.Error(w, "PUT an owner and a fence", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if fence < c.fence {
		fmt.Fprintf(c.out, "cloud  refuses %s with fence %d: %s has shown %d\n", r.FormValue("owner"), fence, c.owner, c.fence)
		http.Error(w, "a machine with a higher fence owns it", http.StatusConflict)
		return
	}
	c.owner, c.fence = r.FormValue("owner"), fence
	fmt.Fprintf(c.out, "cloud  gives the address to %s with fence %d\n", c.owner, fence)
	close(c.moved)
	c.moved = make(chan struct{})
}

// next returns the owner of the address, and a channel that is closed when the owner changes.
func (c *cloud) next() (owner string, fence uint64, moved <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owner, c.fence, c.moved
}

// assign calls the API of the cloud.
func assign(ctx context.Context, api, owner string, fence uint64) error {
	query := url.Values{"owner": {owner}, "fence": {strconv.FormatUint(fence, 10)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, api+"/address?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("the cloud answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

// run does what a program does: it competes for the address, and calls the cloud when it has it.
func run(ctx context.Context, node *flotilla.Node, api, name string) error {
	return vip.Run(ctx, node, vip.Config{
		Addr:   netip.MustParsePrefix("198.51.100.7/32"),
		Binder: vip.Func{Bind: func(ctx context.Context, m vip.Move) error { return assign(ctx, api, name, m.Fence) }},
	})
}

// demo runs the cloud and the nodes, and kills the owner of the address.
func demo(ctx context.Context, out io.Writer) (err error) {
	c := &cloud{out: out, moved: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: c}
	go srv.Serve(l)
	defer srv.Close()
	api := "http://" + l.Addr().String()

	nodes, err := cluster(ctx)
	var running sync.WaitGroup
	defer func() {
		for _, n := range nodes {
			n.Close()
		}
		running.Wait()
	}()
	if err != nil {
		return err
	}
	for name, n := range nodes {
		running.Go(func() {
			if err := run(ctx, n, api, name); err != nil && !errors.Is(err, net.ErrClosed) {
				fmt.Fprintf(out, "%s  %v\n", name, err)
			}
		})
	}
	owner, fence, moved := c.next()
	for ; owner == ""; owner, fence, moved = c.next() {
		if err := wait(ctx, moved); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "demo   kills %s\n", owner)
	dead, start := owner, time.Now()
	nodes[dead].Close()
	for ; owner == dead; owner, _, moved = c.next() {
		if err := wait(ctx, moved); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "demo   %s has the address after %v\n", owner, time.Since(start).Round(10*time.Millisecond))
	fmt.Fprintf(out, "demo   a call that %s made before its death arrives late\n", dead)
	if err := assign(ctx, api, dead, fence); err == nil {
		return errors.New("the cloud has given the address to a dead machine")
	}
	return nil
}

func wait(ctx context.Context, moved <-chan struct{}) error {
	select {
	case <-moved:
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("no machine got the address within 30 s")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cluster starts three nodes in this process. Real nodes are on three machines.
func cluster(ctx context.Context) (map[string]*flotilla.Node, error) {
	secret := flotilla.NewSecret()
	var addrs []string
	var listeners []net.Listener
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners, addrs = append(listeners, l), append(addrs, l.Addr().String())
	}
	nodes := make(map[string]*flotilla.Node)
	for i, name := range []string{"alpha", "bravo", "charlie"} {
		n, err := flotilla.Open(ctx, flotilla.Config{
			Name: name, Addr: addrs[i], Secrets: []flotilla.Secret{secret}, Peers: flotilla.Static(addrs...), Expect: 3,
			PeerListen: func(string, string) (net.Listener, error) { return listeners[i], nil },
		})
		if err != nil {
			return nodes, err
		}
		nodes[name] = n
	}
	for name, n := range nodes {
		ready, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := n.Ready(ready)
		cancel()
		if err != nil {
			return nodes, fmt.Errorf("%s: %w", name, err)
		}
	}
	return nodes, nil
}
