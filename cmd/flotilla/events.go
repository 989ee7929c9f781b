package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

const eventsInterval = time.Second // between two requests of "events -follow"

func eventsCommand() cli.Command {
	return cli.Command{
		Name:    "events",
		Args:    "[NODE]",
		Summary: "show what has happened to the nodes and the cluster",
		Text: `
Each node keeps its newest 256 events, in memory. The command joins those of all
nodes, or shows those of a NODE, given by its name or ID. What several nodes
have seen, such as an election, is shown once.

A line has the time in UTC, how much the event should worry you, the node that
has recorded it, what it happened to, and why. The order follows the clocks of
the nodes.
` + admin.Help,
		Examples: []string{
			"flotilla events -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373",
			"flotilla events -follow",
			"flotilla events -json | jq 'select(.Severity != \"info\")'",
		},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			asJSON := flags.Bool("json", false, "print each event as JSON in a line, for programs")
			follow := flags.Bool("follow", false, "go on with new events until it is interrupted")
			return func(ctx context.Context, args []string) error {
				client, err := cluster.Open()
				if err != nil {
					return err
				}
				defer client.Close()
				e := &eventReader{env: env, client: client, asJSON: *asJSON, nodes: make(map[string]*readNode), seen: make(map[string]bool)}
				if len(args) > 0 {
					e.only = args[0]
				}
				return e.run(ctx, *follow)
			}
		},
	}
}

// eventReader reads the events of nodes.
type eventReader struct {
	env    *cli.Env
	client *admin.Client
	asJSON bool
	only   string // the node that an operator names; empty: all

	nodes map[string]*readNode // by ID
	seen  map[string]bool      // the keys of the cluster's events that were shown
}

// readNode is how far the events of a node were read.
type readNode struct {
	name, process string
	number        uint64
	fault         string // why it does not answer; empty: it does
}

// run shows the events that there are and, if it is to follow, those that come until ctx ends.
func (r *eventReader) run(ctx context.Context, follow bool) error {
	fault := ""
	for first := true; ; first = false {
		err := r.round(ctx)
		if ctx.Err() != nil && follow {
			return nil // the operator interrupts it: this is no failure
		}
		if err != nil && (first || !follow) {
			return err
		}
		if !follow {
			return nil
		}
		now := ""
		if err != nil {
			now = err.Error()
		}
		if now != fault {
			if fault = now; fault == "" {
				fault = "the nodes answer again"
			}
			fmt.Fprintln(r.env.Stderr, plaintext.Safe(fault))
			fault = now
		}
		select {
		case <-time.After(eventsInterval):
		case <-ctx.Done():
			return nil
		}
	}
}

// round reads and shows what is new.
func (r *eventReader) round(ctx context.Context) error {
	v, err := r.client.Look(ctx)
	if err != nil {
		return err
	}
	nodes := v.Nodes
	if r.only != "" {
		n, err := v.Find(r.only)
		if err != nil {
			return err
		}
		nodes = append(nodes[:0:0], n)
	}
	all := make([][]event.Event, len(nodes))
	faults := make([]string, len(nodes))
	var asking sync.WaitGroup
	for i, n := range nodes {
		known := r.nodes[n.ID]
		if known == nil {
			known = new(readNode)
			r.nodes[n.ID] = known
		}
		known.name = n.Name
		asking.Go(func() { all[i], faults[i] = known.read(ctx, r.client, n.ID) })
	}
	asking.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i, n := range nodes {
		if known := r.nodes[n.ID]; known.fault != faults[i] {
			if known.fault = faults[i]; known.fault != "" {
				fmt.Fprintf(r.env.Stderr, "%s tells no events: %s\n", plaintext.Safe(n.Name), plaintext.Safe(known.fault))
			}
		}
	}
	for _, e := range event.Merge(all...) {
		if e.Key != "" && r.seen[e.Key] {
			continue
		}
		r.seen[e.Key] = true
		if err := r.show(e); err != nil {
			return err
		}
	}
	return nil
}

// read returns the events of the node that are new, or why it does not answer.
func (n *readNode) read(ctx context.Context, client *admin.Client, id string) ([]event.Event, string) {
	reply, err := client.Events(ctx, remote.EventsRequest{Node: id, Process: n.process, After: n.number})
	var found []event.Event
	if err == nil {
		found, err = reply.List()
	}
	if err != nil {
		return nil, err.Error()
	}
	if n.process != reply.Process {
		n.process, n.number = reply.Process, 0
	}
	if len(found) > 0 {
		n.number = found[len(found)-1].Number
	}
	return found, ""
}

func (r *eventReader) show(e event.Event) error {
	if r.asJSON {
		return r.env.WriteJSONLine(e)
	}
	_, err := io.WriteString(r.env.Stdout, r.env.Style().Paint(r.env.Wrap(eventLine(e)), severityHue(e.Severity))+"\n")
	return err
}

func severityHue(s event.Severity) term.Hue {
	switch s {
	case event.Error:
		return term.Bad
	case event.Warn:
		return term.Odd
	}
	return term.Plain
}

// eventLine returns an event in a line.
func eventLine(e event.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-5s  %s  ", e.Time.UTC().Format("2006-01-02 15:04:05.000"), e.Severity, e.Node)
	if e.Subject != "" {
		fmt.Fprintf(&b, "%s: ", e.Subject)
	}
	b.WriteString(e.Text)
	if e.Cause != "" {
		fmt.Fprintf(&b, ": %s", e.Cause)
	}
	if e.Outage > 0 {
		fmt.Fprintf(&b, " (outage %v)", e.Outage.Round(time.Millisecond))
	}
	return plaintext.Safe(b.String())
}
