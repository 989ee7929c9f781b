package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/view"
)

func drainCommand() cli.Command {
	return cli.Command{
		Name:    "drain",
		Args:    "NODE",
		Summary: "take roles and new clients off a node",
		Text: `
NODE is the name of a node, its ID, or the beginning of its ID. While it is
drained, it tells balancers that it is not ready (/readyz), and it holds no
roles and no floating addresses: it hands over those that it has. It stays a
member, answers every request that reaches it, and still leads if it led
("flotilla members transfer" changes that).

"flotilla undrain" undoes it, and so does a restart of the node. The last node
that is ready is drained only with -force.
` + admin.Help,
		Examples: []string{"flotilla drain n1", "flotilla undrain n1"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			force := flags.Bool("force", false, "even if no other node is ready")
			return func(ctx context.Context, args []string) error {
				return cluster.WithNode(ctx, args[0], func(client *admin.Client, v *view.Cluster, n view.Node) error {
					name := plaintext.Safe(n.Name)
					if !*force && !v.OthersReady(n.ID) {
						return fmt.Errorf("no other node is ready, so balancers would have none to choose; "+
							"to drain %s all the same, give -force", name)
					}
					return client.Do("draining "+name, func() (remote.Answer, error) {
						return client.Drain(ctx, remote.DrainRequest{Node: n.ID})
					})
				})
			}
		},
	}
}

func undrainCommand() cli.Command {
	return cli.Command{
		Name:    "undrain",
		Args:    "NODE",
		Summary: "let a drained node take part again",
		Text: `
The node is ready again and claims its roles. A role that another node holds now
comes back only if the role's priorities and groups say so.
` + admin.Help,
		Examples: []string{"flotilla undrain n1"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			return func(ctx context.Context, args []string) error {
				return cluster.WithNode(ctx, args[0], func(client *admin.Client, _ *view.Cluster, n view.Node) error {
					return client.Do("undraining "+plaintext.Safe(n.Name), func() (remote.Answer, error) {
						return client.Drain(ctx, remote.DrainRequest{Node: n.ID, Undo: true})
					})
				})
			}
		},
	}
}
