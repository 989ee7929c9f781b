package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/remote"
)

const shortestWatch = 100 * time.Millisecond

func statusCommand() command {
	return command{
		name:    "status",
		summary: "show the nodes, the leader, roles and certificates",
		text: `
One node is asked, and it asks the others. STATE says how a node is:

  ready      it takes part, and should get requests
  drained    an operator has drained it; it serves, and holds no roles
  draining   it is on its way out by itself
  not ready  it has not found its cluster, or has lost it
  suspect    the leader has not heard of it, and is about to take it for gone
  silent     the others take it for alive, but it does not answer
  absent     the others take it for gone
  failed     it takes no part any more, because of an error

RAFT says who leads, who votes, and who only follows. LEASE is for how long the
node may hold its roles if nobody renews it. The exit code is 0 if a node has
answered, however the cluster is; "flotilla health" judges.
` + connectText,
		examples: []string{
			"flotilla status -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373",
			"flotilla status -watch",
			"flotilla status -json | jq -r '.Nodes[] | .Name + \" \" + .State'",
		},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			asJSON := jsonFlag(flags)
			watch := flags.Bool("watch", false, "show it again and again until it is interrupted: in its place on a\n"+
				"terminal, else a line for each change")
			every := flags.Duration("interval", 2*time.Second, "`TIME` between two looks with -watch; 2s is usual")
			return func(ctx context.Context, args []string) error {
				if err := noArgs(args); err != nil {
					return err
				}
				if *every < shortestWatch {
					return usagef("-interval is %v at least", shortestWatch)
				}
				client, err := conn.open()
				if err != nil {
					return err
				}
				defer client.Close()
				if *watch {
					return p.watch(ctx, client, *every, *asJSON)
				}
				pic, err := p.lookSlowly(ctx, client)
				if err != nil {
					return err
				}
				if *asJSON {
					return p.writeJSON(pic.json(), true)
				}
				pic.write(p.stdout, p.style(), time.Now())
				return nil
			}
		},
	}
}

func jsonFlag(flags *flag.FlagSet) *bool {
	return flags.Bool("json", false, "print JSON, for programs")
}

// write prints the whole picture.
func (pic *picture) write(w io.Writer, s style, now time.Time) {
	pic.writeHead(w, s)
	fmt.Fprintln(w)
	pic.writeNodes(w, s)
	if len(pic.best.Roles) > 0 {
		fmt.Fprintln(w)
		pic.writeRoles(w, s, now, false)
	}
	if all, serving := pic.certificates(); len(all) > 0 {
		fmt.Fprintln(w)
		writeCertificates(w, s, all, serving)
	}
	if t := pic.best.Tickets; t.Key != "" {
		fmt.Fprintf(w, "\nsession ticket key %s  %s old  earlier keys accepted: %d\n", t.Key, span(time.Duration(t.AgeSeconds)*time.Second), t.Previous)
	}
	if remarks := pic.remarks(); len(remarks) > 0 {
		fmt.Fprintln(w)
		for _, r := range remarks {
			fmt.Fprintln(w, s.paint(wrap(r), odd))
		}
	}
}

func (pic *picture) writeHead(w io.Writer, s style) {
	if pic.best.Cluster == "" {
		fmt.Fprintln(w, "no cluster yet")
		return
	}
	leader := s.paint("none", bad)
	if pic.led() {
		leader = shown(pic.name(pic.best.Leader))
	}
	all, there := pic.voters()
	fmt.Fprintf(w, "cluster %s  leader %s  term %d  entry %d  voters there: %d of %d\n", short(pic.best.Cluster), leader, pic.best.Term, pic.best.Index, there, all)
}

func (pic *picture) writeNodes(w io.Writer, s style) {
	t := table{head: []string{"NODE", "STATE", "RAFT", "LEASE", "ID", "ADDRESS"}}
	for _, n := range pic.nodes {
		state, h := n.state()
		lease := ""
		if n.said != nil {
			lease = "none"
			if n.said.Lease.Held {
				lease = fmt.Sprintf("%d ms", n.said.Lease.LeftMillis)
			}
		}
		t.row(n.Name, state, h, pic.raft(&n), lease, short(n.ID), n.Addr)
	}
	t.write(w, s)
}

// raft says what a node does in raft.
func (pic *picture) raft(n *node) string {
	switch {
	case n.ID == pic.best.Leader:
		return "leads"
	case n.Voter:
		return "votes"
	case pic.best.Cluster == "":
		return ""
	}
	return "follows"
}

// writeRoles prints the roles that are held; wide adds what only the command for roles shows.
func (pic *picture) writeRoles(w io.Writer, s style, now time.Time, wide bool) {
	t := table{head: []string{"ROLE", "HOLDER", "HELD FOR", "WAITING", "NOTE"}}
	if wide {
		t.head = []string{"ROLE", "HOLDER", "HELD FOR", "WAITING", "FENCE", "GROUP", "NOTE"}
	}
	for _, r := range pic.best.Roles {
		note, h := "", plain
		switch {
		case r.Holder == "":
			note, h = "", bad
		case r.Ghost:
			note, h = "its holder is gone", bad
		case r.Yields:
			note, h = "is being handed over", odd
		case r.Pinned:
			note = "moved by hand"
		}
		held := ""
		if r.Since.UnixNano() > 0 {
			held = span(now.Sub(r.Since))
		}
		holder := pic.name(r.Holder)
		if r.Holder == "" {
			holder = "none known"
		}
		if wide {
			t.row(r.Name, holder, held, r.Waiting, r.Fence, r.Group, note, h)
		} else {
			t.row(r.Name, holder, held, r.Waiting, note, h)
		}
	}
	t.write(w, s)
}

func writeCertificates(w io.Writer, s style, all []served, serving int) {
	t := table{head: []string{"CERTIFICATE", "DAYS LEFT", "ISSUER", "NODES", "NOTE"}}
	for _, c := range all {
		note, h := c.health()
		days := ""
		if !c.NotAfter.IsZero() {
			days = fmt.Sprint(c.DaysLeft)
		}
		if note == "" && c.Err != "" {
			note = "see below"
		}
		nodes := "all"
		if len(c.nodes) < serving {
			nodes = strings.Join(c.nodes, ",")
		}
		t.row(c.Name, days, h, c.Issuer, nodes, note, h)
	}
	t.write(w, s)
}

// remarks returns what an operator should know, most important first.
func (pic *picture) remarks() []string {
	var out []string
	if q := pic.quorum(); q != "" {
		out = append(out, "remark: "+q)
	}
	for _, n := range pic.nodes {
		if f := n.fault(); f != "" {
			out = append(out, "remark: "+shown(n.Name)+": "+shown(f))
		}
	}
	for _, s := range pic.space() {
		if w := s.Warning(); w != "" {
			out = append(out, "remark: "+w)
		}
	}
	for _, n := range pic.nodes {
		if n.said == nil {
			continue
		}
		for _, r := range n.said.Roles {
			if r.Remark != "" {
				out = append(out, "remark: "+shown(n.Name)+": "+shown(r.Name)+": "+shown(r.Remark))
			}
		}
	}
	all, _ := pic.certificates()
	for _, c := range all {
		if c.Err != "" {
			next := ""
			if !c.Next.IsZero() {
				next = "; next try at " + c.Next.UTC().Format(time.DateTime) + " UTC"
			}
			out = append(out, "remark: certificate "+shown(c.Name)+" ("+strings.Join(c.nodes, ", ")+"): "+shown(c.Err)+next)
		}
	}
	return out
}

// watch shows the picture until ctx ends: on a screen in its place, else once and then the changes.
func (p *program) watch(ctx context.Context, client *remote.Client, every time.Duration, asJSON bool) error {
	var before map[string]string
	for {
		pic, err := p.look(ctx, client)
		if ctx.Err() != nil {
			return nil // this is how it ends
		}
		if unreachable := (*remote.UnreachableError)(nil); err != nil && !errors.As(err, &unreachable) {
			return err
		}
		now := time.Now()
		facts := maps.Clone(before) // a cluster that nobody answers for has not lost its roles
		if err == nil {
			facts = factsOf(pic)
		} else if facts == nil {
			facts = make(map[string]string)
		}
		facts["cluster"] = map[bool]string{true: "a node answers", false: "no node answers"}[err == nil]
		switch {
		case asJSON && err == nil && !maps.Equal(before, facts):
			if err := p.writeJSON(pic.json(), false); err != nil {
				return err
			}
		case asJSON && err != nil && !maps.Equal(before, facts):
			if err := p.writeJSON(map[string]string{"Err": err.Error()}, false); err != nil {
				return err
			}
		case asJSON:
		case p.screen:
			p.redraw(func(w io.Writer) {
				if fmt.Fprintf(w, "%s  every %v, ends with Ctrl-C\n\n", now.Format(time.DateTime), every); err != nil {
					fmt.Fprintln(w, err)
				} else {
					pic.write(w, p.style(), now)
				}
			}, before == nil)
		case before == nil && err == nil:
			pic.write(p.stdout, p.style(), now)
			fmt.Fprintln(p.stdout)
		default:
			writeChanges(p.stdout, now, before, facts)
		}
		before = facts
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
	}
}

// redraw shows text in place of what the screen has.
func (p *program) redraw(write func(io.Writer), first bool) {
	var b strings.Builder
	write(&b)
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	height := 0
	if p.height != nil {
		height = p.height()
	}
	if fit := height - 1; height > 2 && len(lines) > fit {
		lines = append(lines[:fit-1], fmt.Sprintf("… and %d lines more", len(lines)-fit+1))
	}
	if first {
		fmt.Fprint(p.stdout, "\x1b[2J")
	}
	fmt.Fprint(p.stdout, "\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J")
}

// factsOf is what -watch tells changes of, by what it is about.
func factsOf(pic *picture) map[string]string {
	facts := map[string]string{"leader": "none"}
	if pic.led() {
		facts["leader"] = pic.name(pic.best.Leader)
	}
	for _, n := range pic.nodes {
		state, _ := n.state()
		if n.Voter {
			state += ", votes"
		}
		facts["node "+n.Name+" "+short(n.ID)] = state
	}
	for _, r := range pic.best.Roles {
		holder := pic.name(r.Holder)
		if r.Holder == "" {
			holder = "none known"
		}
		if r.Ghost {
			holder += ", which is gone"
		}
		facts["role "+r.Name] = holder
	}
	all, serving := pic.certificates()
	for _, c := range all {
		text, _ := c.health()
		if text == "" {
			text = "until " + c.NotAfter.UTC().Format(time.DateOnly) + " by " + c.Issuer + ", serial " + c.Serial
		}
		if c.Err != "" {
			text += " (" + c.Err + ")"
		}
		if len(c.nodes) < serving {
			text += " on " + strings.Join(c.nodes, ", ")
		}
		key := "certificate " + c.Name
		if other := facts[key]; other != "" {
			text = other + "; " + text
		}
		facts[key] = text
	}
	return facts
}

// writeChanges prints a line for each fact that has changed.
func writeChanges(w io.Writer, now time.Time, before, after map[string]string) {
	both := maps.Clone(before)
	if both == nil {
		both = make(map[string]string)
	}
	maps.Copy(both, after)
	for _, k := range slices.Sorted(maps.Keys(both)) {
		was, is := before[k], after[k]
		if was == is {
			continue
		}
		if was == "" {
			was = "-"
		}
		if is == "" {
			is = "-"
		}
		fmt.Fprintf(w, "%s  %s: %s -> %s\n", now.UTC().Format(time.RFC3339), shown(k), shown(was), shown(is))
	}
}
