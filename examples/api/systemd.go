package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/flotilla-ha/flotilla"
)

// What a program does for systemd is in this file, for you to copy. The unit is in deploy/systemd.
// Where systemd has not started the program, nothing here has any effect.

// tellSystemd tells systemd until ctx ends that the node works, when it is ready, what it does, and
// when the program is about to end, which signalled says. It returns at once.
func tellSystemd(ctx, signalled context.Context, node *flotilla.Node) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return err
	}
	say := func(state string) { daemon.SdNotify(false, state) } // if systemd does not hear, it acts
	go prove(ctx, cmp.Or(limit, 30*time.Second), node.Status, say)
	go func() {
		ready, said := false, ""
		for s := range node.Watch(ctx) {
			if s.Ready && !ready {
				ready = true
				say(daemon.SdNotifyReady)
			}
			if text := describe(s); text != said {
				said = text
				say("STATUS=" + text)
			}
		}
	}()
	context.AfterFunc(signalled, func() { say(daemon.SdNotifyStopping) })
	return nil
}

// prove tells systemd several times within limit that the node works, as long as that is so. The
// proof is that the loop has run which renews the node's lease. It runs without a majority as well,
// when a restart would mend nothing. When it hangs, systemd ends the program and starts another
// one. Until the node is ready, systemd has no watchdog: then each proof extends the time to start.
func prove(ctx context.Context, limit time.Duration, status func() flotilla.Status, say func(state string)) {
	tick := time.NewTicker(limit / 4)
	defer tick.Stop()
	for proof := fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", limit.Microseconds()); ; {
		s := status()
		if s.Ready {
			proof = daemon.SdNotifyWatchdog
		}
		if time.Duration(s.Lease.IdleMillis)*time.Millisecond < limit/2 {
			say(proof)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// describe says in a line what a node does, for systemctl status.
func describe(s flotilla.Status) string {
	voters, present := 0, 0
	for _, m := range s.Members {
		if m.Voter {
			voters++
			if m.Present {
				present++
			}
		}
	}
	doing := "follows " + s.LeaderName
	switch {
	case s.Err != "":
		return "takes no part: " + strings.Join(strings.Fields(s.Err), " ") // one line
	case s.Cluster == "":
		return "in no cluster yet"
	case s.Leader == "":
		return "no leader"
	case s.Draining:
		doing = "drains"
	case !s.Ready:
		doing = "not ready"
	case s.Leader == s.ID:
		doing = "leads"
	}
	return fmt.Sprintf("%s, %s, tolerates %s", doing, count(len(s.Members), "node"), count(present-voters/2-1, "failure"))
}

func count(n int, noun string) string {
	switch {
	case n <= 0:
		return "no " + noun
	case n == 1:
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// activated returns a Config.Listen with the sockets that systemd has opened for this program: each
// of addrs gets that of its port. The others are left to the node. Without any socket it returns
// nil. Each call opens another listener on the socket, because flotilla.Serve closes what it gets
// and asks again when it opens the node anew.
func activated(addrs ...string) (listen func(network, addr string) (net.Listener, error), err error) {
	ports := make(map[string]*os.File)
	for _, socket := range activation.Files(true) {
		ln, err := net.FileListener(socket)
		if err != nil {
			return nil, fmt.Errorf("one of the sockets of systemd is not one to listen on: the socket unit wants ListenStream=: %w", err)
		}
		at := ln.Addr().String()
		if err := ln.Close(); err != nil {
			return nil, err
		}
		port := portOf(at)
		if !slices.ContainsFunc(addrs, func(addr string) bool { return portOf(addr) == port }) {
			return nil, fmt.Errorf("systemd listens on %s, and this program on the ports of %s only", at, strings.Join(addrs, " "))
		}
		if ports[port] != nil {
			return nil, fmt.Errorf("systemd has two sockets for port %s: write ListenStream=%s once, without an address", port, port)
		}
		ports[port] = socket
	}
	if len(ports) == 0 {
		return nil, nil
	}
	return func(_, addr string) (net.Listener, error) {
		if socket := ports[portOf(addr)]; socket != nil {
			return net.FileListener(socket)
		}
		return nil, nil
	}, nil
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
