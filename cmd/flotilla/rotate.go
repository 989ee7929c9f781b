package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

const (
	rotateAgain = 300 * time.Millisecond // between two requests
	rotateRest  = 10 * time.Second       // between two lines about the same wait
)

func rotateSecretCommand() cli.Command {
	return cli.Command{
		Name:    "rotate secret",
		Summary: "replace the cluster's secret",
		Text: `
First make a secret (flotilla keygen), and add it to the secrets of every node:
one more line in the file that FLOTILLA_SECRETS_FILE names, which a running node
reads again by itself. Then run this command with a file that holds both.

The command goes through four steps, and each waits for every member: all have
the new secret; all have sealed everything for it; all use it among themselves;
the former one is dropped, and nothing is on any disk that only it opens. It
says which nodes it waits for, and why. It can be interrupted, and run again at
any time: it goes on where it was. At the end take the former secret out of
every file. Backups from before still need it. If the cluster was formed with
several secrets, the first one in the file stays.

Anyone who knows the former secret and has a copy of a data directory or a
backup from before can still read that copy, and learns the data key from it.
If there may be such a copy, run "flotilla rotate data" afterwards.
` + admin.Help,
		Examples: []string{"flotilla rotate secret -secret-file /etc/flotilla/secrets"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			return func(ctx context.Context, _ []string) error {
				secrets, err := cluster.Secrets()
				if err != nil {
					return err
				}
				q := remote.RotateRequest{What: remote.RotateSecret}
				for _, s := range secrets {
					q.Have = append(q.Have, s.ID())
				}
				return rotate(ctx, env, cluster, q, "the cluster uses the new secret alone; take the former one out of the secrets of every node")
			}
		},
	}
}

func rotateDataCommand() cli.Command {
	return cli.Command{
		Name:    "rotate data",
		Summary: "replace the key that seals what the cluster stores",
		Text: `
The cluster makes a new data key and seals everything with it. Then it forgets
the former one, and overwrites what that has sealed: the log, the snapshots, and
the free room in their files. A file system that writes elsewhere when it
overwrites, or a disk that does, may keep some of it. Backups from before are
not changed.

The command waits for every member, and says for which and why. It can be
interrupted, and run again at any time: it goes on where it was.
` + admin.Help,
		Examples: []string{"flotilla rotate data"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			return func(ctx context.Context, _ []string) error {
				return rotate(ctx, env, cluster, remote.RotateRequest{What: remote.RotateData}, "everything is sealed with a new data key")
			}
		},
	}
}

func rotateTicketsCommand() cli.Command {
	return cli.Command{
		Name:    "rotate tickets",
		Summary: "make all TLS session tickets worthless",
		Text: `
Each client makes one full handshake instead of resuming its session. The keys
of tickets are replaced every twelve hours anyway: this is for when somebody may
know the present ones.
` + admin.Help,
		Examples: []string{"flotilla rotate tickets"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			return func(ctx context.Context, _ []string) error {
				return rotate(ctx, env, cluster, remote.RotateRequest{What: remote.RotateTickets}, "all session tickets are worthless, and there are new keys")
			}
		},
	}
}

// rotate asks for steps until nothing is left to do, and says how far it is.
func rotate(ctx context.Context, env *cli.Env, cluster *admin.Flags, q remote.RotateRequest, done string) error {
	client, err := cluster.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	err = drive(ctx, env, func() (remote.RotateReply, error) {
		p, err := client.Rotate(ctx, q)
		if err == nil {
			q.Begun = p.Begun
		}
		return p, err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Stdout, done)
	return err
}

// drive takes steps until nothing is left to do, and says how far that is.
func drive(ctx context.Context, env *cli.Env, step func() (remote.RotateReply, error)) error {
	said := rotation{out: env.Stderr, began: time.Now()}
	for {
		p, err := step()
		switch {
		case err != nil && said.step == 0:
			return err
		case err != nil:
			if err := said.lost(err); err != nil {
				return err
			}
		case p.Refused:
			return errors.New(plaintext.Safe(p.Doing))
		default:
			said.report(p)
			if p.Done {
				return nil
			}
		}
		select {
		case <-time.After(rotateAgain):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// rotation reports how far a replacement is.
type rotation struct {
	out   io.Writer
	began time.Time
	step  int
	doing string    // what was reported of it
	wait  string    // the last reason to wait that was reported
	when  time.Time // when
	since time.Time // no node answers since then; zero: one does
}

// patience is how long no node may answer in the middle of a replacement.
const patience = 30 * time.Second

func (r *rotation) report(p remote.RotateReply) {
	r.since = time.Time{}
	if (p.Step != r.step || p.Doing != r.doing && time.Since(r.when) > rotateRest) && p.Steps > 1 {
		r.step, r.doing, r.wait, r.when = p.Step, p.Doing, "", time.Now()
		fmt.Fprintf(r.out, "step %d of %d (%d %%, %s): %s\n", p.Step, p.Steps, 100*(p.Step-1)/p.Steps,
			time.Since(r.began).Round(time.Second), plaintext.Safe(p.Doing))
	}
	if now := plaintext.Safe(strings.Join(p.Waiting, "; ")); now != "" && (now != r.wait || time.Since(r.when) > rotateRest) {
		r.wait, r.when = now, time.Now()
		fmt.Fprintf(r.out, "waiting (%s): %s\n", time.Since(r.began).Round(time.Second), now)
	}
}

// lost takes an error in the middle of a replacement, such as while there is no leader. It returns
// the error if that takes too long.
func (r *rotation) lost(err error) error {
	if r.since.IsZero() {
		r.since = time.Now()
	}
	if time.Since(r.since) < patience {
		return nil
	}
	return fmt.Errorf("%w\nrun the same command again to go on", err)
}
