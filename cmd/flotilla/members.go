package main

import (
	"context"
	"flag"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/show"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/view"
)

func membersCommand() cli.Command {
	return cli.Command{
		Name:    "members",
		Summary: "list the members, with their whole IDs",
		Text: `
STATE and RAFT are those of "flotilla status". Below the table, the command says
why a member does not vote, or what to do about a voter that is gone, and how
many more voters may fail before there is no majority. If nodes have a zone
(FLOTILLA_ZONE), it says which zones may be lost as a whole.
` + admin.Help,
		Examples: []string{"flotilla members -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			asJSON := cli.JSONFlag(flags)
			return func(ctx context.Context, _ []string) error {
				return cluster.WithView(ctx, func(_ *admin.Client, v *view.Cluster) error {
					if *asJSON {
						return env.WriteJSON(v.MembersJSON())
					}
					show.Members(env.Stdout, env.Style(), v)
					return nil
				})
			}
		},
	}
}

func membersRemoveCommand() cli.Command {
	return cli.Command{
		Name:    "members remove",
		Args:    "NODE",
		Summary: "remove a node that will not come back",
		Text: `
A node that is gone loses its vote once another member can vote in its place,
and is removed after a day (FLOTILLA_REMOVE_DEAD). This command removes it now.
NODE is its name, its ID, or the beginning of its ID.

A node that is present is not removed: stop it first, or let its program call
Node.Leave. With -force it is removed, and can come back only with an empty
directory, as a new node. The leader is never removed, nor is a node without
which the remaining voters would have no majority. The command needs a leader.
` + admin.Help,
		Examples: []string{"flotilla members remove n2", "flotilla members remove -force 5f3a9c01"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			force := flags.Bool("force", false, "even if the node is present")
			return func(ctx context.Context, args []string) error {
				return cluster.WithNode(ctx, args[0], func(client *admin.Client, _ *view.Cluster, n view.Node) error {
					return client.Do("removing "+plaintext.Safe(n.Name), func() (remote.Answer, error) {
						return client.Remove(ctx, remote.RemoveRequest{Node: n.ID, Force: *force})
					})
				})
			}
		},
	}
}

func membersTransferCommand() cli.Command {
	return cli.Command{
		Name:    "members transfer",
		Args:    "[NODE]",
		Summary: "transfer the leadership",
		Text: `
NODE is the name of a voter, its ID, or the beginning of its ID. Without NODE,
any voter that has every log entry becomes the leader. Writes wait for the
fraction of a second that the transfer takes; reads and requests do not.
` + admin.Help,
		Examples: []string{"flotilla members transfer", "flotilla members transfer n1"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			return func(ctx context.Context, args []string) error {
				return cluster.WithView(ctx, func(client *admin.Client, v *view.Cluster) error {
					q := remote.TransferRequest{From: v.Best.Leader}
					if len(args) > 0 {
						n, err := v.Find(args[0])
						if err != nil {
							return err
						}
						q.To = n.ID
					}
					if !v.HasLeader() {
						return v.NoLeader()
					}
					return client.Do("transferring the leadership", func() (remote.Answer, error) {
						return client.Transfer(ctx, q)
					})
				})
			}
		},
	}
}
