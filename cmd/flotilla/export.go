package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/exporter"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/records"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
)

func exportCommand() cli.Command {
	return cli.Command{
		Name:    "export",
		Args:    "DIR",
		Summary: "export certificates and accounts to a directory",
		Text: `
DIR becomes a directory of certmagic's FileStorage, which any program that uses
certmagic can take over. It is created if it does not exist. Otherwise it must
be empty, or hold only the result of an interrupted export: files that are equal
stay, files that differ are refused. PRIVATE KEYS ARE WRITTEN UNENCRYPTED:
anyone who can read DIR or a backup of it can impersonate your sites. Confirm
this with -plain-keys.

Directories get mode 0700, files 0600. Locks and challenge tokens are left out.
Without a leader a node gives what it has, and the report says that newer
records may exist.
` + admin.Help,
		Examples: []string{"flotilla export -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373,10.0.0.2:7373 -plain-keys ./certificates"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			plain := flags.Bool("plain-keys", false, "yes, write private keys unencrypted")
			return func(ctx context.Context, args []string) error {
				if !*plain {
					return cli.Usagef("private keys would be written unencrypted to %s, "+
						"where anyone who can read it gets them; confirm this with -plain-keys", args[0])
				}
				return export(ctx, env, cluster, args[0])
			}
		},
	}
}

func export(ctx context.Context, env *cli.Env, cluster *admin.Flags, dir string) error {
	client, err := cluster.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	var keys []string
	var current bool
	env.Await("listing the records", func() { keys, current, err = client.List(ctx, "") })
	if err != nil {
		return err
	}
	keys, left := exporter.Select(keys)
	target, err := exporter.OpenTarget(dir, keys)
	if err != nil {
		return err
	}
	defer target.Close()
	if !current {
		fmt.Fprintln(env.Stdout, "remark: no leader answered; these are the records of one node, and newer ones may exist")
	}
	if target.Open() {
		fmt.Fprintf(env.Stdout, "remark: users other than the owner may enter %s; they cannot read the files in it\n", dir)
	}
	r := records.NewReport("files", left, records.Written, records.Same, records.Refused)
	progress := env.StartProgress("exporting", term.Goal{Total: int64(len(keys))})
	err = exporter.Run(ctx, client, target, keys, r, progress.One)
	progress.End()
	err = errors.Join(err, target.Sync())
	r.Write(env.Stdout)
	if len(keys) == 0 {
		fmt.Fprintln(env.Stdout, "there is nothing to export")
	}
	if err != nil {
		return fmt.Errorf("stopped after %d of %d; repeat it to complete it: %w", progress.Done(), len(keys), err)
	}
	if r.AnyRefused() {
		return cli.ErrReported
	}
	return nil
}
