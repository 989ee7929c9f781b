package main

import (
	"context"
	"flag"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

func upgradeCommand() cli.Command {
	return cli.Command{
		Name:    "upgrade",
		Summary: "raise the cluster version once all nodes are upgraded",
		Text: `
First replace the program of every node, one node after another. Until the
cluster version is raised, each node can go back to the program before. The
leader raises the version by itself when all nodes have supported the next one
for an hour. This command does not wait for that.

It is refused while a node is away or supports less, and says which. Programs
that do not support the new version cannot take part any more. "flotilla status"
shows the version, and what the next one waits for. The command needs a leader.
` + admin.Help,
		Examples: []string{"flotilla upgrade -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			return func(ctx context.Context, _ []string) error {
				client, err := cluster.Open()
				if err != nil {
					return err
				}
				defer client.Close()
				return client.Do("raising the cluster version", func() (remote.Answer, error) { return client.Upgrade(ctx) })
			}
		},
	}
}
