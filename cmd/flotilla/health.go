package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/show"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/view"
)

func healthCommand() cli.Command {
	return cli.Command{
		Name:    "health",
		Args:    "[NODE]",
		Summary: "report by exit code whether the cluster or a node is healthy",
		Text: `
The cluster is healthy if it has a leader, every member is ready, no certificate
has expired, no backup is late, no eviction is left to end, and less than 95 %
of each limit of the state is used; from 80 % on the command prints a warning. A
NODE, given by its name or ID, is healthy if it is ready and its certificates
have not expired. A drained node is not ready. A node is not healthy if its
configuration differs from that of others in a setting that all must share.

Exit codes: 0 healthy, 1 not healthy, 3 no node answered.
` + admin.Help,
		Examples: []string{
			"flotilla health -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373",
			"flotilla health -quiet n2 || echo n2 is not healthy",
		},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			quiet := flags.Bool("quiet", false, "print nothing but errors")
			timeout := flags.Duration("timeout", 15*time.Second, "`TIME` to wait for an answer; the default is 15s")
			return func(ctx context.Context, args []string) error {
				if *timeout <= 0 {
					return cli.Usagef("-timeout must be more than 0")
				}
				env.Quiet = *quiet
				ctx, cancel := context.WithTimeoutCause(ctx, *timeout, noAnswer(*timeout))
				defer cancel()
				return cluster.WithView(ctx, func(_ *admin.Client, v *view.Cluster) error {
					checks := v.Health(time.Now())
					if len(args) > 0 {
						n, err := v.Find(args[0])
						if err != nil {
							return err
						}
						checks = v.NodeHealth(n)
					}
					return reportHealth(env, checks, *quiet)
				})
			}
		},
	}
}

// noAnswer is the error of a request that took too long.
func noAnswer(timeout time.Duration) error {
	return &remote.UnreachableError{Err: fmt.Errorf("no node has answered within %v; "+
		"are the addresses right, and does every firewall let their port pass?", timeout)}
}

func reportHealth(env *cli.Env, checks []view.Check, quiet bool) error {
	var err error
	for _, c := range checks {
		if !c.Healthy {
			err = cli.ErrReported
		}
		if !quiet {
			line := env.Wrap(plaintext.Safe(c.What) + ": " + plaintext.Safe(c.Text))
			fmt.Fprintln(env.Stdout, env.Style().Paint(line, show.Hue(c.Grade)))
		}
	}
	return err
}
