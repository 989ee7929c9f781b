package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"strings"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/preflight"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

func checkCommand() cli.Command {
	return cli.Command{
		Name:    "check",
		Summary: "check a machine and its configuration before a node starts",
		Text: `
The command reads the variables that the program reads (flotilla.ConfigFromEnv),
and looks whether a node could start with them and do its work: the directory
and its disk, the secret, the ports, the peers and their settings, the clock,
the certificate authority, the names, the floating addresses. Run it as the
user of the program, in its environment.

Each line is "ok", a "warning", or a "failure", with what to do about it. A node
with warnings starts; a peer that is not there yet is one. Nothing is changed,
and no directory is made. Beside a running node the command says that it runs,
and checks the rest.

The names and the floating addresses are in the program, so give them by flags.

Exit codes: 0 nothing fails, 1 something fails.`,
		Examples: []string{
			"flotilla check -domains www.example.com,example.com -addresses 192.0.2.100/24",
			"flotilla check -json | jq -r '.Findings[] | select(.Level != \"ok\") | .Text'",
		},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			domains := flags.String("domains", "", "`NAMES` that the program serves: a.example.com,b.example.com")
			addresses := flags.String("addresses", "", "floating `ADDRESSES` with the prefix lengths of their subnets:\n"+
				"192.0.2.100/24,2001:db8::100/64")
			ifname := flags.String("interface", "", "`NAME` of the interface for them; the default is the one in the same\nsubnet")
			serve := flags.Bool("serve", true, "the program uses flotilla.Serve; with -serve=false the ports for\nclients are left out")
			asJSON := cli.JSONFlag(flags)
			return func(ctx context.Context, _ []string) error {
				o := preflight.Options{
					Domains: listed(*domains), Interface: *ifname, Serve: *serve, Getenv: env.Getenv, Dial: env.Dial,
				}
				for _, text := range listed(*addresses) {
					p, err := netip.ParsePrefix(text)
					if err != nil {
						return cli.Usagef("-addresses must list addresses with the length of their prefix, such as 192.0.2.100/24, not %q", text)
					}
					o.Addresses = append(o.Addresses, p)
				}
				if *ifname != "" && len(o.Addresses) == 0 {
					return cli.Usagef("-interface is that of -addresses, which are missing")
				}
				return check(ctx, env, o, *asJSON)
			}
		},
	}
}

// listed splits a list.
func listed(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

func check(ctx context.Context, env *cli.Env, o preflight.Options, asJSON bool) error {
	progress := env.StartProgress("checking", term.Goal{})
	o.Step = func(doing string, done, all int) {
		progress.Next(doing, term.Goal{Total: int64(all)})
		progress.Add(int64(done))
	}
	report := preflight.Run(ctx, o)
	progress.End()
	failures, warnings := report.Count(preflight.Failure), report.Count(preflight.Warning)
	if asJSON {
		err := env.WriteJSON(struct {
			Findings           preflight.Report
			Failures, Warnings int
		}{report, failures, warnings})
		if err != nil {
			return err
		}
	} else {
		writeFindings(env, report)
		fmt.Fprintf(env.Stdout, "%d checks: %d failures, %d warnings\n", len(report), failures, warnings)
	}
	if failures > 0 {
		return cli.ErrReported
	}
	return nil
}

func writeFindings(env *cli.Env, report preflight.Report) {
	style := env.Style()
	for _, f := range report {
		hue := term.Good
		switch f.Level {
		case preflight.Warning:
			hue = term.Odd
		case preflight.Failure:
			hue = term.Bad
		}
		text := f.Text
		if f.Remedy != "" {
			text += " (remedy: " + f.Remedy + ")"
		}
		// Blanks between words are lost when a line is broken, so others stand for those of the column.
		head := string(f.Level)
		column := strings.Repeat("\x00", len(preflight.Warning)-len(head))
		line := strings.ReplaceAll(env.Wrap(head+column+" "+f.Item+": "+plaintext.Safe(text)), "\x00", " ")
		fmt.Fprintln(env.Stdout, style.Paint(head, hue)+strings.TrimPrefix(line, head))
	}
}
