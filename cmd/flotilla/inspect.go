package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/flotilla-ha/flotilla"
)

func inspectCommand() command {
	return command{
		name:    "inspect",
		args:    "DIR",
		summary: "say what a node's data directory holds",
		text: `
DIR is the directory that a node keeps its state in (FLOTILLA_DIR), or a copy of
it. Nothing in it is changed. The log is checked from the first to the last
byte, and the newest snapshot is opened. What the records hold is never shown,
their names with -records.

If a node runs with DIR its log is left alone, because it changes all the time:
who the node is and its snapshots are shown, and the rest by "flotilla status".
While this command reads the directory of a node that does not run, which takes
a moment, the node cannot start.
` + secretText,
		examples: []string{"flotilla inspect -secret-file /etc/flotilla/secret /var/lib/flotilla"},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := &connection{p: p, secretFile: secretFlag(flags)}
			asJSON := jsonFlag(flags)
			records := flags.Bool("records", false, "list the names of the stored records")
			return func(_ context.Context, args []string) error {
				dir, err := oneArg(args, "DIR")
				if err != nil {
					return err
				}
				raw, err := conn.secrets()
				if err != nil {
					return err
				}
				var secrets []flotilla.Secret
				for _, r := range raw {
					s, err := flotilla.ParseSecret(r.Encode())
					if err != nil {
						return err
					}
					secrets = append(secrets, s)
				}
				var in flotilla.Inspection
				p.waiting("reading "+shown(dir), func() { in, err = flotilla.Inspect(dir, secrets...) })
				count := len(in.Records)
				if !*records {
					in.Records = nil
				}
				if *asJSON && in.ID != "" {
					err = errors.Join(p.writeJSON(struct {
						flotilla.Inspection
						RecordCount int
					}{in, count}, true), err)
				} else if in.ID != "" {
					writeInspection(p.stdout, p.style(), &in, count, time.Now())
				}
				return plainError(err)
			}
		},
	}
}

// writeInspection prints what was found, as far as it was.
func writeInspection(w io.Writer, s style, in *flotilla.Inspection, records int, now time.Time) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s%s\n", s.paint(fmt.Sprintf("%-11s", name), strong), fmt.Sprintf(format, args...))
	}
	line("node", "%s  %s", shown(in.Name), in.ID)
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
		line("in use", "by a running node: its log was not read (ask it by \"flotilla status\")")
	}
	if in.Snapshots > 0 {
		line("snapshots", "%d; the newest up to entry %d of term %d, %s, %s ago", in.Snapshots, in.SnapshotIndex, in.SnapshotTerm, size(in.SnapshotBytes), span(now.Sub(in.SnapshotTime)))
	} else {
		line("snapshots", "none")
	}
	if in.Last > 0 {
		line("log", "entries %d to %d, %s", in.First, in.Last, size(in.LogBytes))
		line("term", "%d", in.Term)
	} else if in.LogBytes > 0 {
		line("log", "no entries, %s", size(in.LogBytes))
		line("term", "%d", in.Term)
	}
	if in.Index == 0 {
		return
	}
	if in.InUse {
		line("state", "up to entry %d, with which the newest snapshot ends", in.Index)
	} else {
		line("state", "up to entry %d; the last ones may not have been agreed upon", in.Index)
	}
	line("records", "%d, %s with names", records, size(in.Bytes))
	line("roles", "%d held", len(in.Roles))
	line("members", "%d", len(in.Members))
	fmt.Fprintln(w)
	t := table{head: []string{"NODE", "RAFT", "ID", "ADDRESS"}}
	for _, m := range in.Members {
		raft := "follows"
		if m.Voter {
			raft = "votes"
		}
		t.row(m.Name, raft, m.ID, m.Addr)
	}
	t.write(w, s)
	if len(in.Records) > 0 {
		fmt.Fprintln(w)
		for _, r := range in.Records {
			fmt.Fprintln(w, shown(r))
		}
	}
}

// plainError takes the library's name off an error, which the program has put before it already.
func plainError(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(trim(err.Error()))
}

func trim(text string) string {
	const name = "flotilla: "
	if len(text) > len(name) && text[:len(name)] == name {
		return text[len(name):]
	}
	return text
}
