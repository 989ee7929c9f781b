package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

func inspectCommand() cli.Command {
	return cli.Command{
		Name:    "inspect",
		Args:    "DIR",
		Summary: "show what a node's data directory holds",
		Text: `
DIR is the directory that a node keeps its state in (FLOTILLA_DIR), or a copy of
it. Nothing in it is changed. The log is checked from the first to the last
byte, and the newest snapshot is opened. The names of records are shown with
-records, their values never.

If a node is running with DIR, its log changes all the time and is not read: the
command shows who the node is and what its newest snapshot holds. For the rest
use "flotilla status". If no node is running, the command takes a moment to read
DIR, and no node can start with it meanwhile.
` + admin.SecretHelp,
		Examples: []string{"flotilla inspect -secret-file /etc/flotilla/secret /var/lib/flotilla"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			secret := admin.NewSecretFlags(env, flags)
			asJSON := cli.JSONFlag(flags)
			records := flags.Bool("records", false, "list the names of the stored records")
			return func(_ context.Context, args []string) error {
				secrets, err := secret.OfCluster()
				if err != nil {
					return err
				}
				return inspect(env, args[0], secrets, *records, *asJSON)
			}
		},
	}
}

// readDir reads a directory, and shows how far it is.
func readDir(env *cli.Env, dir string, secrets []flotilla.Secret) (in flotilla.Inspection, err error) {
	var reads string
	var done atomic.Int64
	progress := env.StartProgress(cli.Reading(dir), term.Goal{})
	defer progress.End()
	err = in.Read(dir, func(what string, n, total int64) {
		done.Store(n)
		if what != reads {
			reads = what
			goal := term.Goal{Total: total, Bytes: what == "snapshot", About: what == "log", Done: done.Load}
			progress.Next("reading the "+what+" in "+plaintext.Safe(dir), goal)
		}
	}, secrets...)
	return in, err
}

// inspect prints what it finds, even if it finds an error too.
func inspect(env *cli.Env, dir string, secrets []flotilla.Secret, records, asJSON bool) error {
	in, err := readDir(env, dir, secrets)
	count, inBuckets := len(in.Records), len(in.Entries)
	if !records {
		in.Records, in.Entries = nil, nil
	}
	switch {
	case in.ID == "": // nothing was found
	case asJSON:
		err = errors.Join(env.WriteJSON(struct {
			flotilla.Inspection
			RecordCount int
			EntryCount  int
		}{in, count, inBuckets}), err)
	default:
		writeInspection(env.Stdout, env.Style(), &in, count, inBuckets, time.Now())
	}
	return cli.Plain(err)
}

func writeInspection(w io.Writer, s term.Style, in *flotilla.Inspection, records, inBuckets int, now time.Time) {
	line := func(name, format string, args ...any) {
		s.Line(w, 11, name, format, args...)
	}
	line("node", "%s  %s", plaintext.Safe(in.Name), in.ID)
	switch {
	case in.Left:
		line("cluster", "%s, which it has left; it starts as a new node", in.Cluster)
	case in.Cluster == "":
		line("cluster", "none yet")
	default:
		line("cluster", "%s", in.Cluster)
	}
	line("secret", "%s", in.Secret)
	line("restarts", "%d", in.Starts)
	if in.InUse {
		line("in use", "by a running node, so its log was not read (use \"flotilla status\")")
	}
	if in.Snapshots > 0 {
		line("snapshots", "%d; the newest up to entry %d of term %d, %s, %s ago", in.Snapshots, in.SnapshotIndex,
			in.SnapshotTerm, plaintext.Size(in.SnapshotBytes), plaintext.Span(now.Sub(in.SnapshotTime)))
	} else {
		line("snapshots", "none")
	}
	if in.Last > 0 {
		line("log", "entries %d to %d, %s", in.First, in.Last, plaintext.Size(in.LogBytes))
		line("term", "%d", in.Term)
	} else if in.LogBytes > 0 {
		line("log", "no entries, %s", plaintext.Size(in.LogBytes))
		line("term", "%d", in.Term)
	}
	if in.Index == 0 {
		return // no state was read
	}
	if in.InUse {
		line("state", "up to entry %d, the last one of the newest snapshot", in.Index)
	} else {
		line("state", "up to entry %d; the last ones may not be committed", in.Index)
	}
	line("records", "%d%s, %s with names", records, entries(inBuckets), plaintext.Size(in.Bytes))
	line("roles", "%d held", len(in.Roles))
	line("members", "%d", len(in.Members))
	fmt.Fprintln(w)
	writeInspectedMembers(w, s, in.Members)
	if len(in.Records)+len(in.Entries) > 0 {
		fmt.Fprintln(w)
		for _, r := range in.Records {
			fmt.Fprintln(w, plaintext.Safe(r))
		}
		for _, e := range in.Entries {
			fmt.Fprintln(w, "bucket "+plaintext.Safe(e))
		}
	}
}

func writeInspectedMembers(w io.Writer, s term.Style, members []flotilla.Member) {
	t := term.NewTable("NODE", "RAFT", "ID", "ADDRESS")
	for _, m := range members {
		raft := "follows"
		if m.Voter {
			raft = "votes"
		}
		t.Row(m.Name, raft, m.ID, m.Addr)
	}
	t.Write(w, s)
}
