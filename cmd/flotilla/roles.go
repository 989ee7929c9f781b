package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/show"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/view"
)

func rolesCommand() cli.Command {
	return cli.Command{
		Name:    "roles",
		Summary: "list the roles and their holders",
		Text: `
A role is a task that one node has at a time: one of the program's own
(Node.Hold), or a floating address. WAITING counts the other claims. FENCE is
the number of the tenure; a later tenure has a higher number.
` + admin.Help,
		Examples: []string{"flotilla roles -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			asJSON := cli.JSONFlag(flags)
			return func(ctx context.Context, _ []string) error {
				return cluster.WithView(ctx, func(_ *admin.Client, v *view.Cluster) error {
					roles := v.Best.Roles
					switch {
					case *asJSON:
						return env.WriteJSON(struct{ Roles []flotilla.RoleStatus }{append([]flotilla.RoleStatus{}, roles...)})
					case len(roles) == 0:
						fmt.Fprintln(env.Stdout, "no role is held")
					default:
						show.Roles(env.Stdout, env.Style(), v.Roles(), time.Now())
					}
					return nil
				})
			}
		},
	}
}

func rolesMoveCommand() cli.Command {
	return cli.Command{
		Name:    "roles move",
		Args:    "ROLE NODE",
		Summary: "move a role to a node",
		Text: `
NODE, given by its name or ID, must be waiting for ROLE. The holder is asked to
hand the role over and has ten seconds to do so. NODE then keeps the role until
it gives it up, even if others have a higher priority. The command needs a
leader.
` + admin.Help,
		Examples: []string{"flotilla roles move mailer n1"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			return func(ctx context.Context, args []string) error {
				return cluster.WithNode(ctx, args[1], func(client *admin.Client, v *view.Cluster, n view.Node) error {
					return moveRole(ctx, client, v, args[0], n.ID)
				})
			}
		},
	}
}

func rolesYieldCommand() cli.Command {
	return cli.Command{
		Name:    "roles yield",
		Args:    "ROLE",
		Summary: "move a role to any other node",
		Text: `
The role goes to the node that would get it if its holder were gone, and stays
there as after "flotilla roles move". If no other node waits for the role, it
does not move.
` + admin.Help,
		Examples: []string{"flotilla roles yield mailer"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			return func(ctx context.Context, args []string) error {
				return cluster.WithView(ctx, func(client *admin.Client, v *view.Cluster) error {
					return moveRole(ctx, client, v, args[0], "")
				})
			}
		},
	}
}

// moveRole moves a role to the node of an ID, or to any other node if it is empty.
func moveRole(ctx context.Context, client *admin.Client, v *view.Cluster, role, to string) error {
	i := slices.IndexFunc(v.Best.Roles, func(r flotilla.RoleStatus) bool { return r.Name == role })
	if i < 0 {
		return fmt.Errorf("no node holds a role %s; \"flotilla roles\" lists them", plaintext.Safe(role))
	}
	if !v.HasLeader() {
		return v.NoLeader()
	}
	q := remote.MoveRequest{Role: role, Fence: v.Best.Roles[i].Fence, To: to}
	return client.Do("moving "+plaintext.Safe(role), func() (remote.Answer, error) { return client.Move(ctx, q) })
}
