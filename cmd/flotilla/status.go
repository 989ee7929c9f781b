package main

import (
	"context"
	"flag"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/show"
)

const shortestInterval = 100 * time.Millisecond

func statusCommand() cli.Command {
	return cli.Command{
		Name:    "status",
		Summary: "show the nodes, the leader, roles and certificates",
		Text: `
The command asks one node, and that node asks the others. STATE is the state of
a node:

  ready        it takes part and should get requests
  drained      an operator has drained it; it serves, and holds no roles
  draining     it is shutting down
  not ready    it has not found its cluster, or has lost it
  clock wrong  its clock differs from those of most other nodes
  suspect      the leader has not heard from it and will soon take it for gone
  silent       the other nodes hear from it, but it does not answer
  absent       the other nodes take it for gone
  failed       it takes no part any more, because of an error

RAFT says who leads, who votes, and who only follows. LEASE is how long the node
may still hold its roles if its lease is not renewed. While nodes run different
programs, SUPPORTS is the newest cluster version that the program of a node
supports, and a line says what the next version waits for.

The exit code is 0 if a node has answered, in whatever state the cluster is. To
get the state as an exit code, use "flotilla health".
` + admin.Help,
		Examples: []string{
			"flotilla status -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373",
			"flotilla status -watch",
			"flotilla status -json | jq -r '.Nodes[] | .Name + \" \" + .State'",
		},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			asJSON := cli.JSONFlag(flags)
			watching := flags.Bool("watch", false, "repeat it until it is interrupted: in place on a terminal, else\n"+
				"with a line for each change")
			interval := flags.Duration("interval", 2*time.Second, "`TIME` between two requests of -watch; the default is 2s")
			return func(ctx context.Context, _ []string) error {
				if *interval < shortestInterval {
					return cli.Usagef("-interval must be at least %v", shortestInterval)
				}
				client, err := cluster.Open()
				if err != nil {
					return err
				}
				defer client.Close()
				if *watching {
					w := &watch{env: env, client: client, interval: *interval, asJSON: *asJSON}
					return w.run(ctx)
				}
				return status(ctx, env, client, *asJSON)
			}
		},
	}
}

func status(ctx context.Context, env *cli.Env, client *admin.Client, asJSON bool) error {
	v, err := client.View(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return env.WriteJSON(v.JSON())
	}
	show.Status(env.Stdout, env.Style(), v, time.Now())
	return nil
}
