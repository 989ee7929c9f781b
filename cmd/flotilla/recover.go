package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// recoverPeerTime bounds the question to one survivor.
const recoverPeerTime = 5 * time.Second

func recoverCommand() cli.Command {
	return cli.Command{
		Name:    "recover",
		Summary: "let one survivor go on when the majority is lost for good",
		Text: `
-dir is the data directory of a survivor, which must be stopped. Without -yes
nothing is changed: the command says what the directory has, and which of its
last entries the cluster may not have agreed on. With -peers it also asks other
survivors, and refuses if one of them has more, or still has a leader.

With -yes the directory becomes that of a node that is alone in another
incarnation of the cluster. Start it; the others join with empty directories or
with their old ones. An old node that meets the recovered cluster gives up, sets
its state aside and joins. Two sides that never meet cannot notice each other:
be sure that the majority is lost, or cut off for good.

The last entries are kept or dropped as -tail says. A kept write that had failed
may then have taken effect; a dropped write that was acknowledged is lost. What
was in the directory before is set aside in it. An interrupted recovery is run
again, with -yes.
` + admin.SecretHelp,
		Examples: []string{
			"flotilla recover -secret-file /etc/flotilla/secret -dir /var/lib/flotilla -peers 10.0.0.2:7373",
			"flotilla recover -secret-file /etc/flotilla/secret -dir /var/lib/flotilla -tail keep -yes",
		},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			secret := admin.NewSecretFlags(env, flags)
			dir := flags.String("dir", "", "`DIR` of the survivor")
			yes := flags.Bool("yes", false, "do it")
			tail := flags.String("tail", "", "`WHAT` to do with the last entries, with -yes: keep or drop")
			peers := flags.String("peers", "", "`ADDRESSES` of other survivors to ask: a:7373,b:7373")
			return func(ctx context.Context, _ []string) error {
				switch {
				case *dir == "":
					return cli.Usagef("-dir is missing: the data directory of the survivor")
				case *tail != "" && *tail != "keep" && *tail != "drop":
					return cli.Usagef("-tail is keep or drop, not %q", *tail)
				case *tail != "" && !*yes:
					return cli.Usagef("-tail does nothing without -yes")
				}
				secrets, err := secret.OfCluster()
				if err != nil {
					return err
				}
				found, err := readDir(env, *dir, secrets)
				switch {
				case found.Interrupted && !*yes:
					return errors.New("an earlier restore or recovery was interrupted; give -yes to complete a recovery")
				case found.Interrupted:
					return doRecover(env, *dir, 0, true, secrets)
				case err != nil:
					return cli.Plain(err)
				case found.InUse:
					return fmt.Errorf("%s is in use by a node; stop it first", *dir)
				case found.Cluster == "" || found.Left:
					return errors.New("its node is no member of a cluster, so there is nothing to recover")
				}
				writeSurvivor(env.Stdout, env.Style(), &found)
				if err := askSurvivors(ctx, env, secret, *peers, &found); err != nil {
					return err
				}
				switch {
				case !*yes:
					fmt.Fprintf(env.Stdout, "\nNothing was changed. To go on with this directory, %s.\n", nextStep(&found))
					return nil
				case len(found.Tail) > 0 && *tail == "":
					return cli.Usagef("give -tail keep or -tail drop: the cluster may have agreed on the last %d entries or not", len(found.Tail))
				}
				return doRecover(env, *dir, found.Bytes, *tail == "keep", secrets)
			}
		},
	}
}

// doRecover recovers a directory whose state has so many bytes, 0 if that is not known.
func doRecover(env *cli.Env, dir string, size int64, keepTail bool, secrets []flotilla.Secret) error {
	// The state is written twice: as a backup of what was there, and as the new one.
	progress := env.StartProgress("recovering", cli.GrowthOf(dir, 2*size))
	aside, err := flotilla.Recover(dir, keepTail, secrets...)
	progress.End()
	if err != nil {
		return cli.Plain(err)
	}
	fmt.Fprintf(env.Stdout, "\nrecovered; what was there before is in %s\n", plaintext.Safe(filepath.Join(dir, aside)))
	_, err = fmt.Fprintln(env.Stdout, "Start this node, and then the others, with empty directories or their old ones.")
	return err
}

func nextStep(in *flotilla.Inspection) string {
	if len(in.Tail) == 0 {
		return "give -yes"
	}
	return "give -yes, and -tail keep or -tail drop"
}

func writeSurvivor(w io.Writer, s term.Style, in *flotilla.Inspection) {
	line := func(name, format string, args ...any) {
		s.Line(w, 11, name, format, args...)
	}
	line("survivor", "%s  %s", plaintext.Safe(in.Name), in.ID)
	line("cluster", "%s", in.Cluster)
	line("agreed", "up to entry %d, as far as the survivor knows", in.Agreed)
	line("holds", "%d records%s, %s with names", len(in.Records), entries(len(in.Entries)), plaintext.Size(in.Bytes))
	if in.Agreed > in.Index {
		line("missing", "the entries behind %d, which were agreed on; another survivor may have them", in.Index)
	}
	if len(in.Tail) == 0 {
		line("tail", "no entry on which the cluster may not have agreed")
		return
	}
	line("tail", "%d entries on which the cluster may have agreed or not:", len(in.Tail))
	t := term.NewTable("ENTRY", "TERM", "WHAT IT DOES")
	for _, e := range in.Tail {
		t.Row(fmt.Sprint(e.Index), fmt.Sprint(e.Term), e.What)
	}
	t.Write(w, s)
}

// askSurvivors asks other survivors what they have. It fails if the cluster lives, or if one of
// them has more than the directory.
func askSurvivors(ctx context.Context, env *cli.Env, secret *admin.Flags, peers string, in *flotilla.Inspection) error {
	var refused []error
	for addr := range strings.FieldsFuncSeq(peers, func(c rune) bool { return c == ',' || c == ' ' }) {
		s, err := askSurvivor(ctx, env, secret, addr)
		if err != nil {
			fmt.Fprintf(env.Stdout, "%s: %v\n", plaintext.Safe(addr), err)
			continue
		}
		fmt.Fprintf(env.Stdout, "%s: %s has applied entry %d\n", plaintext.Safe(addr), plaintext.Safe(s.Name), s.Index)
		switch last := max(in.Index, in.Last); {
		case s.Cluster != in.Cluster:
			refused = append(refused, fmt.Errorf("%s belongs to another cluster, %s", addr, s.Cluster))
		case s.Leader != "":
			refused = append(refused, fmt.Errorf("%s has a leader, so the majority is not lost; start this node instead", s.Name))
		case s.Index > last:
			refused = append(refused, fmt.Errorf("%s has applied entry %d, and this directory ends with entry %d: recover that node instead", s.Name, s.Index, last))
		}
	}
	return errors.Join(refused...)
}

func askSurvivor(ctx context.Context, env *cli.Env, secret *admin.Flags, addr string) (*flotilla.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, recoverPeerTime, errors.New("no answer in time"))
	defer cancel()
	client, err := secret.OpenAt(addr)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	v, err := client.View(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(v.Nodes, func(n view.Node) bool { return n.Status != nil && n.Status.Addr == addr })
	if i < 0 {
		return &v.Best, nil
	}
	return v.Nodes[i].Status, nil
}
