package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"

	"github.com/flotilla-ha/flotilla/internal/remote"
)

func exportCommand() command {
	return command{
		name:    "export",
		args:    "DIR",
		summary: "write the cluster's certificates and accounts to a directory",
		text: `
DIR becomes a directory of certmagic's FileStorage, which any program that uses
certmagic can take over. It is made if it is not there; else it must be empty,
or hold nothing but the result of an export that was interrupted: what is equal
stays, what is not is refused. PRIVATE KEYS ARE WRITTEN UNENCRYPTED: whoever can
read DIR, or a backup of it, can impersonate your sites. -plain-keys says that
you want that.

Directories get mode 0700, files 0600. Locks and challenge tokens are left out.
Without a leader a node gives what it has, and the report says that it may not
be the newest.
` + connectText,
		examples: []string{"flotilla export -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373,10.0.0.2:7373 -plain-keys ./certificates"},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			plain := flags.Bool("plain-keys", false, "yes, write private keys unencrypted")
			return func(ctx context.Context, args []string) error {
				dir, err := oneArg(args, "DIR")
				if err != nil {
					return err
				}
				if !*plain {
					return usagef("private keys would be written unencrypted to %s, for anybody who can read it; give -plain-keys if you want that", dir)
				}
				return p.export(ctx, conn, dir)
			}
		},
	}
}

func (p *program) export(ctx context.Context, conn *connection, dir string) error {
	client, err := conn.open()
	if err != nil {
		return err
	}
	defer client.Close()
	keys, current, err := client.List(ctx, "")
	if err != nil {
		return err
	}
	left := make(map[kind]int)
	keys = slices.DeleteFunc(keys, func(key string) bool {
		k, _ := kindOf(key)
		if k.leftOut() {
			left[k]++
		}
		return k.leftOut()
	})
	t, err := openTarget(dir, keys)
	if err != nil {
		return err
	}
	defer t.close()
	if !current {
		fmt.Fprintln(p.stdout, "remark: no leader could be asked; this is what one node has, and it may not be the newest")
	}
	if t.open {
		fmt.Fprintf(p.stdout, "remark: others than its owner may enter %s; its files are for its owner alone\n", dir)
	}
	r := newReport("files", len(keys), left, outcomeWritten, outcomeSame, outcomeRefused)
	g := p.startProgress("exporting", len(keys))
	err = exportAll(ctx, client, t, keys, r, g)
	g.end()
	err = errors.Join(err, t.sync())
	r.write(p.stdout)
	if err != nil {
		return fmt.Errorf("stopped after %d of %d; repeat it to complete it: %w", g.done.Load(), len(keys), err)
	}
	return r.err()
}

// exportAll writes what keys hold. Keys that cannot be file names are refused before they are asked for.
func exportAll(ctx context.Context, client *remote.Client, t *target, keys []string, r *report, g *progress) error {
	keys = slices.DeleteFunc(keys, func(key string) bool {
		err := checkName(key)
		if err != nil {
			r.add(kindFile(key), key, outcomeRefused, err.Error())
		}
		return err != nil
	})
	for record, err := range client.Load(ctx, keys) {
		if err != nil {
			return err
		}
		done, err := t.write(record.Key, record.Value)
		switch {
		case err != nil:
			r.add(kindFile(record.Key), record.Key, outcomeRefused, err.Error())
		case done:
			r.add(kindFile(record.Key), record.Key, outcomeWritten, "")
		default:
			r.add(kindFile(record.Key), record.Key, outcomeSame, "")
		}
		g.done.Add(1)
	}
	return nil
}

// kindFile is the kind of a key.
func kindFile(key string) kind {
	k, _ := kindOf(key)
	return k
}
