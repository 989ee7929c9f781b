package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"
)

func healthCommand() command {
	return command{
		name:    "health",
		args:    "[NODE]",
		summary: "say by the exit code whether the cluster or a node is well",
		text: `
The cluster is well if it has a leader and every member is ready, if no
certificate has expired, and if less than 95 % of each of the state's limits is
used; from 80 % on that is printed. A NODE, given by its name or ID, is well if
it is ready and its certificates have not expired. A node that is drained is not
ready. One that is configured differently from others, in what all must have
alike, is not well.

Exit codes: 0 all is well, 1 something is not, 3 no node gave an answer.
` + connectText,
		examples: []string{
			"flotilla health -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373",
			"flotilla health -quiet n2 || echo n2 is not well",
		},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			conn := connectFlags(p, flags)
			quiet := flags.Bool("quiet", false, "print nothing but errors")
			limit := flags.Duration("timeout", 15*time.Second, "`TIME` after which no answer is no answer; 15s is usual")
			return func(ctx context.Context, args []string) error {
				name := ""
				if len(args) > 0 {
					var err error
					if name, err = oneArg(args, "NODE"); err != nil {
						return err
					}
				}
				if *limit <= 0 {
					return usagef("-timeout is more than 0")
				}
				return p.health(ctx, conn, name, *quiet, *limit)
			}
		},
	}
}

func (p *program) health(ctx context.Context, conn *connection, name string, quiet bool, limit time.Duration) error {
	client, err := conn.open()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, unanswered(limit))
	defer cancel()
	pic, err := p.lookSlowly(ctx, client)
	if err != nil {
		return err
	}
	nodes := pic.nodes
	if name != "" {
		n, err := pic.find(name)
		if err != nil {
			return err
		}
		nodes = []node{n}
	}
	var lines []string
	sick := false
	say := func(what, fault string, h hue) {
		sick = sick || fault != ""
		text := shown(what) + ": ok"
		if fault != "" {
			text = shown(what) + ": " + shown(fault)
		}
		lines = append(lines, p.style().paint(p.fold(text), h))
	}
	if name == "" {
		if q := pic.quorum(); q != "" {
			say("cluster", q, bad)
		}
	}
	for _, n := range nodes {
		fault, h := n.fault(), good
		if fault != "" {
			_, h = n.state()
		}
		say(n.Name, fault, h)
	}
	if name == "" {
		for _, s := range pic.space() {
			switch w := s.Warning(); {
			case s.Full():
				say("state", w, bad)
			case w != "":
				lines = append(lines, p.style().paint(p.fold("state: ok, but "+w), odd))
			}
		}
	}
	all, _ := pic.certificates()
	for _, c := range all {
		if text, _ := c.health(); c.DaysLeft < 0 && (name == "" || contains(c.nodes, nodes[0].Name)) {
			say("certificate "+c.Name, text, bad)
		}
	}
	if !quiet {
		fmt.Fprintln(p.stdout, strings.Join(lines, "\n"))
	}
	if sick {
		return errRefused
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}
