package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/remote"
)

func membersCommand() command {
	return command{
		name:    "members",
		summary: "list the members, with their whole IDs",
		text: `
STATE and RAFT are those of "flotilla status". Below the table it says of each
member that does not vote, or votes and is gone, why that is so.
` + connectText,
		examples: []string{"flotilla members -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373"},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			asJSON := jsonFlag(flags)
			return func(ctx context.Context, args []string) error {
				if err := noWord("members", args); err != nil {
					return err
				}
				return p.withPicture(ctx, conn, func(_ *remote.Client, pic *picture) error {
					if *asJSON {
						out := pic.json()
						for i := range out.Nodes {
							out.Nodes[i].Status = nil
						}
						return p.writeJSON(out, true)
					}
					t := table{head: []string{"NODE", "STATE", "RAFT", "ID", "ADDRESS"}}
					for _, n := range pic.nodes {
						state, h := n.state()
						t.row(n.Name, state, h, pic.raft(&n), n.ID, n.Addr)
					}
					t.write(p.stdout, p.style())
					for _, n := range pic.nodes {
						if n.Why != "" {
							fmt.Fprintf(p.stdout, "%s: %s\n", shown(n.Name), n.Why)
						}
					}
					return nil
				})
			}
		},
	}
}

func removeCommand() command {
	return command{
		name:    "members remove",
		args:    "NODE",
		summary: "take a node that will not come back out of the cluster",
		text: `
A node that is gone votes no more once another member can vote in its place, and
is removed after a day (FLOTILLA_REMOVE_DEAD). This is for one that should go
now. NODE is its name, or its ID or the beginning of that.

A node that is present is not taken out: stop it first, or have its program call
Node.Leave. With -force it is, and it can come back only with an empty
directory, as a new node. The leader is never taken out, nor is a node without
which no majority of the voters that are left would be there. It needs a leader.
` + connectText,
		examples: []string{"flotilla members remove n2", "flotilla members remove -force 5f3a9c01"},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			force := flags.Bool("force", false, "even if the node is present")
			return func(ctx context.Context, args []string) error {
				name, err := oneArg(args, "NODE")
				if err != nil {
					return err
				}
				return p.withNode(ctx, conn, name, func(client *remote.Client, pic *picture, n node) error {
					return p.ask("removing "+shown(n.Name), func() (remote.Answer, error) {
						return client.Remove(ctx, remote.RemoveRequest{Node: n.ID, Force: *force})
					})
				})
			}
		},
	}
}

func transferCommand() command {
	return command{
		name:    "members transfer",
		args:    "[NODE]",
		summary: "hand the leadership over",
		text: `
NODE is the name of a node that votes, or its ID or the beginning of that.
Without it any voter that has every entry is taken. Writes wait for the fraction
of a second that it takes; reads and requests do not.
` + connectText,
		examples: []string{"flotilla members transfer", "flotilla members transfer n1"},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			return func(ctx context.Context, args []string) error {
				name := ""
				if len(args) > 0 {
					var err error
					if name, err = oneArg(args, "NODE"); err != nil {
						return err
					}
				}
				return p.withPicture(ctx, conn, func(client *remote.Client, pic *picture) error {
					q := remote.TransferRequest{From: pic.best.Leader}
					if name != "" {
						n, err := pic.find(name)
						if err != nil {
							return err
						}
						q.To = n.ID
					}
					if q.From == "" {
						return pic.leaderless()
					}
					return p.ask("handing over the leadership", func() (remote.Answer, error) { return client.Transfer(ctx, q) })
				})
			}
		},
	}
}

// leaderless is the error of what needs a leader, and there is none.
func (pic *picture) leaderless() error {
	text := pic.quorum()
	if text == "" {
		text = "the node that was asked is in no cluster yet"
	}
	return &remote.UnreachableError{Err: errors.New(text)}
}

// withPicture calls f with a client, and what the cluster looks like.
func (p *program) withPicture(ctx context.Context, conn *connection, f func(*remote.Client, *picture) error) error {
	client, err := conn.open()
	if err != nil {
		return err
	}
	defer client.Close()
	pic, err := p.lookSlowly(ctx, client)
	if err != nil {
		return err
	}
	return f(client, pic)
}

// withNode is withPicture, and calls f with the node that an operator has named.
func (p *program) withNode(ctx context.Context, conn *connection, name string, f func(*remote.Client, *picture, node) error) error {
	return p.withPicture(ctx, conn, func(client *remote.Client, pic *picture) error {
		n, err := pic.find(name)
		if err != nil {
			return err
		}
		return f(client, pic, n)
	})
}

// ask has something done and says what has become of it.
func (p *program) ask(doing string, f func() (remote.Answer, error)) error {
	var a remote.Answer
	var err error
	p.waiting(doing, func() { a, err = f() })
	if err != nil {
		return err
	}
	if a.Refused {
		return errors.New(shown(a.Text))
	}
	_, err = fmt.Fprintln(p.stdout, shown(a.Text))
	return err
}
