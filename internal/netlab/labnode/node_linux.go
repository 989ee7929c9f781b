package labnode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/steps"
	"github.com/flotilla-ha/flotilla/vip"
)

// shutdownTime bounds the end of a node: an operator would not wait longer.
const shutdownTime = 10 * time.Second

// Main is for TestMain. In a process that [Cluster.Start] started it is a node until SIGTERM, and
// then exits. In other processes it does nothing.
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
	if s.NoFence {
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
	if s.Steps {
		log = steps.Logger(os.Stderr)
	}
	node, err := flotilla.Open(ctx, flotilla.Config{
		Dir: s.Dir, Name: s.Name, Addr: s.Addr, Secrets: []flotilla.Secret{secret},
		Peers: flotilla.Static(s.Peers...), Expect: len(s.Peers), Timing: s.Timing, Logger: log,
	})
	if err != nil {
		return err
	}
	// The node answers until its addresses are gone.
	answering, stopAnswering := context.WithCancel(context.Background())
	var rest sync.WaitGroup
	rest.Go(func() {
		if err := netlab.Respond(answering, s.Name, netlab.Ready); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	rest.Go(func() { recordLeader(answering, node, leaderFile(s.Dir)) })
	rest.Go(func() { moveOnSignal(answering, node) })
	if s.Health != "" {
		health := &http.Server{Addr: s.Health, Handler: node.Health(), ReadHeaderTimeout: shutdownTime}
		rest.Go(func() {
			if err := health.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
				fmt.Fprintln(os.Stderr, err)
			}
		})
		defer context.AfterFunc(answering, func() { health.Close() })()
	}
	errs := hold(ctx, stop, node, s, log)
	stopAnswering()
	rest.Wait()
	ending, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	return errors.Join(append(errs, node.Shutdown(ending))...)
}

// hold runs all floating addresses until ctx ends. An error of one stops all.
func hold(ctx context.Context, stop func(), node *flotilla.Node, s spec, log *slog.Logger) []error {
	var all sync.WaitGroup
	errs := make([]error, len(s.Units))
	for k, unit := range s.Units {
		all.Go(func() {
			cfg := vip.Config{Addr: unit[0], With: unit[1:], NoGuard: s.NoGuard, Probe: s.Probe, Logger: log}
			if !s.Spread && k == s.Number {
				cfg.Priority = 1
			}
			if s.Keep {
				cfg.Quorum = vip.Keep
			}
			if errs[k] = vip.Run(ctx, node, cfg); errs[k] != nil {
				stop()
			}
		})
	}
	all.Wait()
	return errs
}

// moveOnSignal moves the roles of this node to other nodes at each SIGUSR1.
func moveOnSignal(ctx context.Context, node *flotilla.Node) {
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

// recordLeader keeps the name of the leader in a file.
func recordLeader(ctx context.Context, node *flotilla.Node, file string) {
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
