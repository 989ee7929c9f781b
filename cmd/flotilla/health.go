package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

func healthCommand() cli.Command {
	return cli.Command{
		Name:    "health",
		Args:    "[NODE]",
		Summary: "report by exit code whether the cluster or a node is healthy",
		Text: `
The cluster is healthy if it has a leader, every member is ready, no certificate
has expired, and less than 95 % of each limit of the state is used; from 80 % on
the command prints a warning. A NODE, given by its name or ID, is healthy if it
is ready and its certificates have not expired. A drained node is not ready. A
node is not healthy if its configuration differs from that of others in a
setting that all must share.

Exit codes: 0 healthy, 1 not healthy, 3 no node answered.
` + admin.Help,
		Examples: []string{
			"flotilla health -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373",
			"flotilla health -quiet n2 || echo n2 is not healthy",
		},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			quiet := flags.Bool("quiet", false, "print nothing but errors")
			timeout := flags.Duration("timeout", 15*time.Second, "`TIME` to wait for an answer; the default is 15s")
			return func(ctx context.Context, args []string) error {
				if *timeout <= 0 {
					return cli.Usagef("-timeout must be more than 0")
				}
				ctx, cancel := context.WithTimeoutCause(ctx, *timeout, noAnswer(*timeout))
				defer cancel()
				h := &healthReport{env: env}
				if err := cluster.WithView(ctx, func(_ *admin.Client, v *view.Cluster) error {
					if len(args) > 0 {
						return h.node(v, args[0])
					}
					h.cluster(v)
					return nil
				}); err != nil {
					return err
				}
				if !*quiet {
					fmt.Fprintln(env.Stdout, strings.Join(h.lines, "\n"))
				}
				if h.faulty {
					return cli.ErrReported
				}
				return nil
			}
		},
	}
}

// noAnswer is the error of a request that took too long.
func noAnswer(timeout time.Duration) error {
	return &remote.UnreachableError{Err: fmt.Errorf("no node has answered within %v; "+
		"are the addresses right, and does every firewall let their port pass?", timeout)}
}

// healthReport is a line for each thing that was looked at.
type healthReport struct {
	env    *cli.Env
	lines  []string
	faulty bool // something is not healthy
}

func (h *healthReport) cluster(v *view.Cluster) {
	if fault := v.Fault(); fault != "" {
		h.fault("cluster", fault, term.Bad)
	}
	for _, n := range v.Nodes {
		h.nodeLine(n)
	}
	for _, s := range v.Space() {
		switch warning := s.Warning(); {
		case s.Full():
			h.fault("state", warning, term.Bad)
		case warning != "":
			h.line("state: ok, but "+warning, term.Odd)
		}
	}
	h.certificates(v, func(*view.Certificate) bool { return true })
}

func (h *healthReport) node(v *view.Cluster, name string) error {
	n, err := v.Find(name)
	if err != nil {
		return err
	}
	h.nodeLine(n)
	h.certificates(v, func(c *view.Certificate) bool { return slices.Contains(c.Nodes, n.Name) })
	return nil
}

func (h *healthReport) nodeLine(n view.Node) {
	fault := n.Fault()
	if fault == "" {
		h.line(term.Safe(n.Name)+": ok", term.Good)
		return
	}
	_, hue := n.State()
	h.fault(n.Name, fault, hue)
}

func (h *healthReport) certificates(v *view.Cluster, wanted func(*view.Certificate) bool) {
	all, _ := v.Certificates()
	for _, c := range all {
		if text, _ := c.State(); c.Expired() && wanted(&c) {
			h.fault("certificate "+c.Name, text, term.Bad)
		}
	}
}

func (h *healthReport) fault(what, text string, hue term.Hue) {
	h.faulty = true
	h.line(term.Safe(what)+": "+term.Safe(text), hue)
}

func (h *healthReport) line(text string, hue term.Hue) {
	h.lines = append(h.lines, h.env.Style().Paint(h.env.Wrap(text), hue))
}
