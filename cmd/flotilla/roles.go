package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

func rolesCommand() command {
	return command{
		name:    "roles",
		summary: "list the roles and who holds them",
		text: `
Roles are what one node does at a time: the program's own (Node.Hold), and
floating addresses. WAITING counts the other claims. FENCE is the number of the
tenure; a later one has a higher number.
` + connectText,
		examples: []string{"flotilla roles -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373"},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			asJSON := jsonFlag(flags)
			return func(ctx context.Context, args []string) error {
				if err := noWord("roles", args); err != nil {
					return err
				}
				return p.withPicture(ctx, conn, func(_ *remote.Client, pic *picture) error {
					roles := pic.best.Roles
					switch {
					case *asJSON:
						return p.writeJSON(struct{ Roles []flotilla.RoleStatus }{append([]flotilla.RoleStatus{}, roles...)}, true)
					case len(roles) == 0:
						fmt.Fprintln(p.stdout, "no role is held")
					default:
						pic.writeRoles(p.stdout, p.style(), time.Now(), true)
					}
					return nil
				})
			}
		},
	}
}

func moveCommand() command {
	return command{
		name:    "roles move",
		args:    "ROLE NODE",
		summary: "have a role handed over to a node",
		text: `
NODE, given by its name or ID, must be waiting for ROLE. Whoever holds the role
is asked to hand over and has ten seconds for that. NODE keeps the role then,
although others may have a higher priority, until it gives it up. It needs a
leader.
` + connectText,
		examples: []string{"flotilla roles move mailer n1"},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			return func(ctx context.Context, args []string) error {
				role, name, err := twoArgs(args, "ROLE", "NODE")
				if err != nil {
					return err
				}
				return p.withNode(ctx, conn, name, func(client *remote.Client, pic *picture, n node) error {
					return p.moveRole(ctx, client, pic, role, n.ID)
				})
			}
		},
	}
}

func yieldCommand() command {
	return command{
		name:    "roles yield",
		args:    "ROLE",
		summary: "have a role handed over to any other node",
		text: `
It goes to the node that would get it if its holder were gone, and stays there
as after "flotilla roles move". If no other node waits for it, it stays where it
is.
` + connectText,
		examples: []string{"flotilla roles yield mailer"},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			return func(ctx context.Context, args []string) error {
				role, err := oneArg(args, "ROLE")
				if err != nil {
					return err
				}
				return p.withPicture(ctx, conn, func(client *remote.Client, pic *picture) error {
					return p.moveRole(ctx, client, pic, role, "")
				})
			}
		},
	}
}

func (p *program) moveRole(ctx context.Context, client *remote.Client, pic *picture, role, to string) error {
	i := slices.IndexFunc(pic.best.Roles, func(r flotilla.RoleStatus) bool { return r.Name == role })
	if i < 0 {
		return fmt.Errorf("no node holds a role %s; \"flotilla roles\" lists them", shown(role))
	}
	if !pic.led() {
		return pic.leaderless()
	}
	q := remote.MoveRequest{Role: role, Fence: pic.best.Roles[i].Fence, To: to}
	return p.ask("moving "+shown(role), func() (remote.Answer, error) { return client.Move(ctx, q) })
}
