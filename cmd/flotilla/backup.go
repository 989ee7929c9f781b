package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/backups"
	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

// goalTime bounds the question of how large a backup will be.
const goalTime = 3 * time.Second

func backupCommand() cli.Command {
	return cli.Command{
		Name:    "backup",
		Summary: "write a sealed backup of the cluster to a file",
		Text: `
A backup has everything that the cluster needs to be itself again: certificates
and their keys, accounts, records, the keys of session tickets. It is sealed: it
needs no other protection, and is worth nothing without the cluster's secret.
Keep that apart from the backups.

The file gets the name of the cluster and the time, unless -out gives it one. It
must not exist yet. It has its name only when it has been read back and restored
into memory. With -out - the backup goes to the standard output, and is read on
its way. "flotilla restore" makes a data directory of a backup.

Any node makes the backup. Without a leader it gives what it has, and the report
says that newer writes may exist.
` + admin.Help,
		Examples: []string{"flotilla backup -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373,10.0.0.2:7373 -out /backups/today"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			out := flags.String("out", "", "`FILE` to write; \"-\" is the standard output")
			asJSON := cli.JSONFlag(flags)
			return func(ctx context.Context, _ []string) error {
				if *out == "-" && env.Screen {
					return cli.Usagef("a backup is no text for a terminal; give -out FILE")
				}
				if *out == "-" && *asJSON {
					return cli.Usagef("with -out - the standard output is the backup; -json has no place there")
				}
				return backup(ctx, env, cluster, *out, *asJSON)
			}
		},
	}
}

func backupVerifyCommand() cli.Command {
	return cli.Command{
		Name:    "backup verify",
		Args:    "FILE",
		Summary: "read a backup and restore it into memory",
		Text: `
Every bit of the file is checked, and every record is read. The exit code is 1
if the file is no backup, was changed or cut, or was sealed with another secret.
The error then names those that open it. FILE can be -, the standard input.
` + admin.SecretHelp,
		Examples: []string{"flotilla backup verify -secret-file /etc/flotilla/secret /backups/today"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			secret := admin.NewSecretFlags(env, flags)
			asJSON := cli.JSONFlag(flags)
			return func(_ context.Context, args []string) error {
				secrets, err := secret.OfCluster()
				if err != nil {
					return err
				}
				info, err := verifyFile(env, args[0], secrets)
				if err != nil {
					return err
				}
				return writeBackup(env, env.Stdout, args[0], info, *asJSON)
			}
		},
	}
}

func restoreCommand() cli.Command {
	return cli.Command{
		Name:    "restore",
		Args:    "FILE",
		Summary: "make a node's data directory of a backup",
		Text: `
-dir is the directory that the node will get (FLOTILLA_DIR). It must not have a
node's data yet. Start one node with it, and the others with empty directories:
they join. The cluster then serves the certificates of the backup, and orders
none. What was written after the backup is lost.

The cluster becomes another incarnation. A node of the former one that meets a
node of this one gives up, sets its state aside in its directory, and joins when
it is started again. Two sides that never meet cannot notice each other: stop
what is left of the former cluster first.

The directory is sealed with the given secrets, and any of them may open the
backup. So a backup from before a change of the secret needs a file with the new
secret and, behind it, the old one. An interrupted restore is run again.
` + admin.SecretHelp,
		Examples: []string{"flotilla restore -secret-file /etc/flotilla/secret -dir /var/lib/flotilla /backups/today"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			secret := admin.NewSecretFlags(env, flags)
			dir := flags.String("dir", "", "`DIR` to make")
			return func(_ context.Context, args []string) error {
				if *dir == "" {
					return cli.Usagef("-dir is missing: the data directory of the node to start")
				}
				secrets, err := secret.OfCluster()
				if err != nil {
					return err
				}
				return restore(env, *dir, args[0], secrets)
			}
		},
	}
}

func backup(ctx context.Context, env *cli.Env, cluster *admin.Flags, out string, asJSON bool) error {
	secrets, err := cluster.OfCluster()
	if err != nil {
		return err
	}
	client, err := cluster.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	if out == "-" {
		progress := env.StartProgress("backing up", backupGoal(ctx, client))
		info, err := streamBackup(ctx, client, progress.Writer(env.Stdout), secrets)
		progress.End()
		if err != nil {
			return err
		}
		return writeBackup(env, env.Stderr, "the standard output", info, false)
	}
	if _, err := os.Lstat(out); out != "" && !errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(err, fmt.Errorf("%s exists; give another name, or move it away", out))
	}
	tmp, err := os.CreateTemp(filepath.Dir(out), ".flotilla-backup-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // which does nothing once it has its name
	progress := env.StartProgress("backing up", backupGoal(ctx, client))
	err = errors.Join(client.Backup(ctx, progress.Writer(tmp)), tmp.Sync(), tmp.Close())
	progress.End()
	if err != nil {
		return err
	}
	info, err := verifyFile(env, tmp.Name(), secrets)
	if err != nil {
		return fmt.Errorf("the backup is useless, and was removed: %w", err)
	}
	if out == "" {
		out = backups.Name(info.Cluster, info.Time)
	}
	if err := os.Rename(tmp.Name(), out); err != nil {
		return err
	}
	if err := diskfile.SyncDir(filepath.Dir(out)); err != nil {
		return err
	}
	return writeBackup(env, env.Stdout, out, info, asJSON)
}

// backupGoal returns about how many bytes a backup will have: its records, and little else. Nobody
// knows that before it is made.
func backupGoal(ctx context.Context, client *admin.Client) term.Goal {
	goal := term.Goal{Bytes: true, About: true}
	ctx, cancel := context.WithTimeout(ctx, goalTime)
	defer cancel()
	if report, _, err := client.Diagnose(ctx, remote.DiagnoseRequest{}); err == nil {
		goal.Total = report.StateBytes
	}
	return goal
}

// streamBackup writes a backup to w and verifies what it writes.
func streamBackup(ctx context.Context, client *admin.Client, w io.Writer, secrets []flotilla.Secret) (flotilla.BackupInfo, error) {
	r, copied := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := client.Backup(ctx, io.MultiWriter(w, copied))
		copied.CloseWithError(err)
		done <- err
	}()
	info, err := flotilla.VerifyBackup(r, secrets...)
	r.CloseWithError(err)
	made := <-done
	if made == nil || errors.Is(made, err) { // the stream ends with the fault that was found
		made = cli.Plain(err)
	}
	return info, made
}

// verifyFile reads a backup. The name "-" is the standard input.
func verifyFile(env *cli.Env, file string, secrets []flotilla.Secret) (info flotilla.BackupInfo, err error) {
	r, err := env.OpenInput(file)
	if err != nil {
		return info, err
	}
	defer r.Close()
	progress := env.StartProgress("reading "+plaintext.Safe(file), cli.GoalOf(r))
	defer progress.End()
	info, err = flotilla.VerifyBackup(progress.Reader(r, nil), secrets...)
	return info, cli.Plain(err)
}

func restore(env *cli.Env, dir, file string, secrets []flotilla.Secret) error {
	r, err := env.OpenInput(file)
	if err != nil {
		return err
	}
	defer r.Close()
	progress := env.StartProgress("reading "+plaintext.Safe(file), cli.GoalOf(r))
	info, err := flotilla.Restore(dir, progress.Reader(r, func() {
		// The directory becomes about as large as the backup.
		progress.Next("making "+plaintext.Safe(dir), cli.GrowthOf(dir, int64(progress.Done())))
	}), secrets...)
	progress.End()
	if err != nil {
		return cli.Plain(err)
	}
	if err := writeBackup(env, env.Stdout, file, info, false); err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "restored    into %s\n\nStart one node with this directory, and the others with empty ones.\n", plaintext.Safe(dir))
	return err
}

// entries names a number of entries of buckets, if there are any.
func entries(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d entries of buckets", n)
}

func writeBackup(env *cli.Env, w io.Writer, file string, info flotilla.BackupInfo, asJSON bool) error {
	if asJSON {
		return env.WriteJSON(info)
	}
	style := env.Style()
	line := func(name, format string, args ...any) {
		style.Line(w, 12, name, format, args...)
	}
	line("backup", "%s, %s", plaintext.Safe(file), plaintext.Size(info.Size))
	line("cluster", "%s", info.Cluster)
	line("made", "%s, by %s", info.Time.UTC().Format(time.RFC3339), plaintext.Safe(info.Node))
	if info.Current {
		line("up to", "entry %d: everything that was acknowledged before", info.Index)
	} else {
		line("up to", "entry %d of one node; there was no leader, and newer entries may exist", info.Index)
	}
	line("holds", "%d records, %d certificates among them%s, %s", info.Records, info.Certificates, entries(info.Entries), plaintext.Size(info.Bytes))
	line("opened by", "the secret %s", strings.Join(info.Secrets, ", or "))
	return nil
}
