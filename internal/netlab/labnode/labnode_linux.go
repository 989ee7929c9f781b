// Package labnode is flotilla in a laboratory of package netlab: a program with floating addresses on each node.
package labnode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/vip"
)

// patience bounds the end of a node.
const patience = 10 * time.Second

// variable has the Spec of a node in its environment.
const variable = "NETLAB_FLOTILLA_NODE"

// Units are addresses that stay together, one group for each node: group k is at node k in good times.
type Units [][]netip.Prefix

// Fleet says how the nodes of a lab run.
type Fleet struct {
	// Lab is where.
	Lab *netlab.Lab
	// Dir is a directory for the nodes' files.
	Dir string
	// Timing is the cluster's.
	Timing flotilla.Timing
	// Units are the addresses.
	Units Units
	// Spread has addresses spread by their group, rather than by priorities.
	Spread bool
	// Keep, NoGuard and Probe are as in vip.Config.
	Keep, NoGuard, Probe bool
	// NoFence has a kernel without nftables.
	NoFence bool

	secret string
}

// spec is what one node is told.
type spec struct {
	Fleet struct {
		Timing                                flotilla.Timing
		Units                                 Units
		Spread, Keep, NoGuard, Probe, NoFence bool
	}
	Number       int
	Name, Dir    string
	Addr, Secret string
	Peers        []string
}

// Start starts the program on node i, and returns when it answers. The program is the running one, so its TestMain must call Main.
func (f *Fleet) Start(i int) (*netlab.Process, error) {
	if f.secret == "" {
		f.secret = flotilla.NewSecret().Encode()
	}
	s := spec{Number: i, Name: f.Lab.Nodes[i].Name, Dir: f.dir(i), Secret: f.secret, Addr: at(f.Lab.Nodes[i])}
	s.Fleet.Timing, s.Fleet.Units, s.Fleet.Spread = f.Timing, f.Units, f.Spread
	s.Fleet.Keep, s.Fleet.NoGuard, s.Fleet.Probe, s.Fleet.NoFence = f.Keep, f.NoGuard, f.Probe, f.NoFence
	for _, n := range f.Lab.Nodes {
		s.Peers = append(s.Peers, at(n))
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	return f.Lab.Nodes[i].StartReady(cmd)
}

func at(h *netlab.Host) string { return h.Addr4.String() + ":7373" }

func (f *Fleet) dir(i int) string { return filepath.Join(f.Dir, f.Lab.Nodes[i].Name) }

// Leader returns the number of the node that leads, as node i knew last; -1 if it knew none.
func (f *Fleet) Leader(i int) int {
	name, err := os.ReadFile(leaderFile(f.dir(i)))
	if err != nil {
		return -1
	}
	for k, n := range f.Lab.Nodes {
		if n.Name == string(name) {
			return k
		}
	}
	return -1
}

func leaderFile(dir string) string { return dir + ".leader" }

// IsGuard reports whether a process is a guard.
func IsGuard(r netlab.Running) bool {
	return len(r.Args) > 0 && strings.Contains(r.Args[0], "flotilla guard")
}

// Main is for TestMain: in a process that Start started it is a node until SIGTERM, and then exits; in others it does nothing.
func Main() {
	text, ok := os.LookupEnv(variable)
	if !ok {
		return
	}
	if err := run(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(text string) error {
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	if s.Fleet.NoFence {
		if err := netlab.DenyNetlink(unix.NETLINK_NETFILTER, unix.EPROTONOSUPPORT); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	secret, err := flotilla.ParseSecret(s.Secret)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	node, err := flotilla.Open(ctx, flotilla.Config{
		Dir: s.Dir, Name: s.Name, Addr: s.Addr, Secrets: []flotilla.Secret{secret}, Peers: flotilla.Static(s.Peers...), Expect: len(s.Peers),
		Timing: s.Fleet.Timing, Logger: log,
	})
	if err != nil {
		return err
	}
	// Whoever asks is answered until the addresses have gone.
	answering, silence := context.WithCancel(context.Background())
	var rest sync.WaitGroup
	rest.Go(func() {
		if err := netlab.Respond(answering, s.Name, netlab.Ready); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	rest.Go(func() { tell(answering, node, leaderFile(s.Dir)) })
	rest.Go(func() { move(answering, node) })
	var all sync.WaitGroup
	errs := make([]error, len(s.Fleet.Units))
	for k, unit := range s.Fleet.Units {
		all.Go(func() {
			cfg := vip.Config{Addr: unit[0], With: unit[1:], NoGuard: s.Fleet.NoGuard, Probe: s.Fleet.Probe, Logger: log}
			if !s.Fleet.Spread && k == s.Number {
				cfg.Priority = 1
			}
			if s.Fleet.Keep {
				cfg.Quorum = vip.Keep
			}
			if errs[k] = vip.Run(ctx, node, cfg); errs[k] != nil {
				stop()
			}
		})
	}
	all.Wait()
	silence()
	rest.Wait()
	// No more than an operator's patience.
	hand, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return errors.Join(append(errs, node.Shutdown(hand))...)
}

// move has another node take what this one holds, at each SIGUSR1.
func move(ctx context.Context, node *flotilla.Node) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	defer signal.Stop(asked)
	for {
		select {
		case <-asked:
		case <-ctx.Done():
			return
		}
		s := node.Status()
		for _, r := range s.Roles {
			if r.Holder != s.ID {
				continue
			}
			if err := node.Move(ctx, r.Name, ""); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}
}

// tell writes down who leads.
func tell(ctx context.Context, node *flotilla.Node, file string) {
	last := ""
	for s := range node.Watch(ctx) {
		if s.LeaderName == last {
			continue
		}
		last = s.LeaderName
		if err := os.WriteFile(file+".new", []byte(last), 0o600); err == nil {
			os.Rename(file+".new", file)
		}
	}
}
