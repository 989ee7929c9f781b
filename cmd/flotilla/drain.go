package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/remote"
)

func drainCommand() command {
	return command{
		name:    "drain",
		args:    "NODE",
		summary: "have a node hand over its roles and take no new clients",
		text: `
NODE is the name of a node, or its ID or the beginning of that. It is not ready
any more in the eyes of balancers (/readyz), hands over its roles, floating
addresses among them, and gets none, for as long as it is drained. It stays a
member, goes on answering whoever comes, and goes on leading if it leads
("flotilla members transfer" changes that).

"flotilla undrain" undoes it, and so does a restart of the node. The last node
that is ready is not drained without -force.
` + connectText,
		examples: []string{"flotilla drain n1", "flotilla undrain n1"},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			force := flags.Bool("force", false, "even if no other node is ready")
			return func(ctx context.Context, args []string) error {
				name, err := oneArg(args, "NODE")
				if err != nil {
					return err
				}
				return p.withNode(ctx, conn, name, func(client *remote.Client, pic *picture, n node) error {
					if !*force && !pic.othersReady(n.ID) {
						return fmt.Errorf("no other node is ready, so nobody would be left for balancers to choose; -force drains %s all the same", shown(n.Name))
					}
					return p.ask("draining "+shown(n.Name), func() (remote.Answer, error) {
						return client.Drain(ctx, remote.DrainRequest{Node: n.ID})
					})
				})
			}
		},
	}
}

// othersReady reports whether a node other than that of the ID is ready.
func (pic *picture) othersReady(id string) bool {
	for _, n := range pic.nodes {
		if state, _ := n.state(); n.ID != id && state == "ready" {
			return true
		}
	}
	return false
}

func undrainCommand() command {
	return command{
		name:    "undrain",
		args:    "NODE",
		summary: "have a drained node take part again",
		text: `
It is ready again, and claims its roles. What other nodes hold by now comes back
to it only as the roles' priorities and groups say.
` + connectText,
		examples: []string{"flotilla undrain n1"},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			return func(ctx context.Context, args []string) error {
				name, err := oneArg(args, "NODE")
				if err != nil {
					return err
				}
				return p.withNode(ctx, conn, name, func(client *remote.Client, _ *picture, n node) error {
					return p.ask("undraining "+shown(n.Name), func() (remote.Answer, error) {
						return client.Drain(ctx, remote.DrainRequest{Node: n.ID, Undo: true})
					})
				})
			}
		},
	}
}
