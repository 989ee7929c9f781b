package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
)

const (
	witnessLook = 5 * time.Second  // between looks whether the witness can go on
	witnessEnd  = 10 * time.Second // for it to end
)

func witnessCommand() cli.Command {
	return cli.Command{
		Name:    "witness",
		Summary: "run a node that only votes, beside two machines",
		Text: `
With a witness on a third, small machine, two machines survive the death of
either. The witness is a member that votes. It holds no roles, serves nobody and
opens one port, for the other nodes. It leads only for the moment in which it
alone has the newest entries of the log.

It is configured by the variables that nodes read. Needed are

  FLOTILLA_DIR           its directory: a witness must remember its votes
  FLOTILLA_SECRETS_FILE  the file of the cluster's secret
  FLOTILLA_PEERS         the addresses of other nodes, such as a:7373,b:7373

and FLOTILLA_TIMING, if the cluster has another than lan. FLOTILLA_ADDR,
_ADVERTISE, _NAME and _ZONE are those of any node. It joins a cluster that is
there, and votes after ten seconds. A second witness helps nobody.

It runs until it gets SIGTERM or SIGINT, and logs to standard error. It exits
with 1 if it cannot go on as this node; a supervisor should start it again.
`,
		Examples: []string{"flotilla witness"},
		Prepare: func(env *cli.Env, _ *flag.FlagSet) cli.Action {
			return func(ctx context.Context, _ []string) error {
				cfg, err := flotilla.ConfigFromEnv()
				if err != nil {
					return cli.Plain(err)
				}
				if cfg.Dir == "" {
					return errors.New("FLOTILLA_DIR is not set, and a witness must remember its votes; name a directory of its own")
				}
				if cfg.Witness = true; cfg.Logger == nil {
					cfg.Logger = slog.New(slog.NewTextHandler(env.Stderr, nil))
				}
				return witness(ctx, cfg)
			}
		},
	}
}

// witness runs a node until ctx ends, or until the node cannot go on.
func witness(ctx context.Context, cfg flotilla.Config) error {
	debug.SetGCPercent(25) // it allocates little, and shares a small machine
	n, err := flotilla.Open(ctx, cfg)
	if err != nil {
		return cli.Plain(err)
	}
	look := time.NewTicker(witnessLook)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if s := n.Status(); s.Err != "" && !s.Retries {
				return errors.Join(errors.New(s.Err), n.Close())
			}
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), witnessEnd)
			defer cancel()
			return cli.Plain(n.Shutdown(end))
		}
	}
}
