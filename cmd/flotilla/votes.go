package main

import (
	"context"
	"flag"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/view"
)

func membersPromoteCommand() cli.Command {
	return cli.Command{
		Name:    "members promote",
		Args:    "NODE",
		Summary: "let a demoted member vote again",
		Text: `
NODE is its name, its ID, or the beginning of its ID. The member votes within
seconds if its vote is of use: if fewer than five others vote, and the voters
then do not survive less. The command needs a leader.
` + admin.Help,
		Examples: []string{"flotilla members promote n2"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			return func(ctx context.Context, args []string) error {
				return cluster.WithNode(ctx, args[0], func(client *admin.Client, _ *view.Cluster, n view.Node) error {
					return client.Do("promoting "+plaintext.Safe(n.Name), func() (remote.Answer, error) {
						return client.Vote(ctx, remote.VoteRequest{Node: n.ID})
					})
				})
			}
		},
	}
}

func membersDemoteCommand() cli.Command {
	return cli.Command{
		Name:    "members demote",
		Args:    "NODE",
		Summary: "take the vote of a member that stays",
		Text: `
The member does not vote until "flotilla members promote", whatever becomes of
the other nodes and of this one. It serves and holds roles as before. If it
leads, it hands the leadership over first. Use it for a machine that is slow or
far away, or before you move one. NODE is its name, its ID, or the beginning of
its ID.

A voter without which the others would have no majority keeps its vote, as does
the last one that can lead. With fewer than three voters none may fail, so that
needs -yes. The command needs a leader.
` + admin.Help,
		Examples: []string{"flotilla members demote n2"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			yes := flags.Bool("yes", false, "even if fewer than three voters are left")
			return func(ctx context.Context, args []string) error {
				return cluster.WithNode(ctx, args[0], func(client *admin.Client, _ *view.Cluster, n view.Node) error {
					return client.Do("demoting "+plaintext.Safe(n.Name), func() (remote.Answer, error) {
						return client.Vote(ctx, remote.VoteRequest{Node: n.ID, Demote: true, Few: *yes})
					})
				})
			}
		},
	}
}
