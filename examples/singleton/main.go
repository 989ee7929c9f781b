// Singleton does a job once for the whole cluster, on a schedule, however many nodes run the
// program.
//
//	go run ./examples/singleton -every 10s
//
// That is one node in memory, on this machine alone. On three machines, the variables of
// docs/configuration.md make the nodes a cluster:
//
//	FLOTILLA_DIR=/var/lib/singleton FLOTILLA_SECRETS_FILE=/etc/singleton/secret FLOTILLA_EXPECT=3 \
//	FLOTILLA_PEERS=10.0.0.1:7373,10.0.0.2:7373,10.0.0.3:7373 FLOTILLA_GUARD=true singleton -every 1h
//
// One of them does the job. If it is restarted, killed or cut off, another one goes on. With
// FLOTILLA_GUARD a killed node is replaced at once, and not after the length of a lease.
//
// schedule.go is what to copy. Its test kills and restarts nodes, in virtual time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
)

// shutdownTime is how long this node may take to hand over what it holds.
const shutdownTime = 10 * time.Second

func main() {
	every := flag.Duration("every", time.Minute, "how often the job is due")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *every); err != nil {
		fmt.Fprintln(os.Stderr, "singleton:", err)
		os.Exit(1)
	}
}

// run is a node that does the job when it is its turn, until ctx ends.
func run(ctx context.Context, every time.Duration) error {
	if every <= 0 {
		return errors.New("-every must be above 0")
	}
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		return err
	}
	node, err := flotilla.Open(ctx, cfg)
	if err != nil {
		return err
	}
	s := schedule{name: "report", every: every, job: report}
	err = s.run(ctx, node)
	if ctx.Err() != nil {
		err = nil // the user has ended the program
	}
	end, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	return errors.Join(err, node.Shutdown(end))
}

// report is the job. A real one sends an invoice, or removes old files.
func report(_ context.Context, due time.Time) error {
	fmt.Println("the report of", due.Format(time.DateTime))
	return nil
}
