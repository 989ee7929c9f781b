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

func evictCommand() cli.Command {
	return cli.Command{
		Name:    "evict",
		Args:    "NODE",
		Summary: "shut out a node whose machine was taken over",
		Text: `
The attacker knows all that the cluster knows: its secret, what it stores, the
keys of certificates. This command takes the node out of the
cluster and makes what it knows worthless. NODE is its name, its ID, or the
beginning of its ID; of a node that was removed before, the whole ID.

First cut the machine off, or switch it off. Make a secret (flotilla keygen),
and add it to the secrets of every other node: one more line in the file that
FLOTILLA_SECRETS_FILE names. The evicted machine must never see it. Then run
this command with a file that holds both secrets, the new one last. Its steps:

 1. The node is no member any more, and every node refuses it. No other node
    joins until the next step is done.
 2. The new secret replaces the present one, as by "flotilla rotate secret".
    With it go the authority of the nodes' own certificates and the keys of the
    guards.
 3. A new data key seals everything, as by "flotilla rotate data".
 4. All TLS session tickets become worthless.
 5. The keys of ACME accounts and of all certificates are replaced, and the
    former certificates are revoked. The leader does that by itself, also if
    this command is interrupted. An authority may limit how fast that goes.

Until the end of step 2 the machine can still talk to the cluster as you can. It
takes seconds once every node has the new secret. The command says what it waits
for, can be interrupted, and goes on when it is run again.

What the machine knew besides is yours to replace: the tokens of DNS providers,
the environment of your program, what your program stores. Backups from before
open with what the machine knew. Make a new one, and delete them.
` + admin.Help,
		Examples: []string{"flotilla evict -secret-file /etc/flotilla/secrets n3"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			return func(ctx context.Context, args []string) error { return evict(ctx, env, cluster, args[0]) }
		},
	}
}

func evict(ctx context.Context, env *cli.Env, cluster *admin.Flags, node string) error {
	secrets, err := cluster.Secrets()
	if err != nil {
		return err
	}
	return cluster.WithView(ctx, func(client *admin.Client, v *view.Cluster) error {
		name, id, q := node, "", remote.EvictRequest{Node: node}
		if n, err := v.Find(node); err == nil {
			name, id = n.Name, n.ID
		} // else it may have been removed; the leader knows
		for _, s := range secrets {
			q.Have = append(q.Have, s.ID())
		}
		// The evicted machine may have answered, but it does not have the new secret. So the end counts
		// when a node with that one says so.
		sure, err := cluster.OpenWith(secrets[len(secrets)-1])
		if err != nil {
			return err
		}
		defer sure.Close()
		var last remote.EvictReply
		err = drive(ctx, env, func() (_ remote.RotateReply, err error) {
			last, err = client.Evict(ctx, q, id)
			if client == sure && err != nil {
				err = fmt.Errorf("no node with the new secret, which must be the last line of the file, says that it is done; "+
					"cut the evicted machine off, and run the command again: %w", err)
			} else if err == nil && last.Done && client != sure {
				client, last.Done = sure, false
			}
			return last.RotateReply, err
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(env.Stdout, "%s is evicted: %s\n", plaintext.Safe(name), plaintext.Safe(last.Doing))
		for _, note := range last.Notes {
			fmt.Fprintln(env.Stdout, "note: "+plaintext.Safe(note))
		}
		_, err = fmt.Fprintln(env.Stdout, "take the former secret out of the secrets of every node, make a backup, and delete those from before")
		return err
	})
}
