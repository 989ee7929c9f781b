package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

func helpCommand() command {
	return command{
		name:     "help",
		args:     "[COMMAND]",
		summary:  "say what the commands do",
		text:     "Without a COMMAND it lists them all.",
		examples: []string{"flotilla help import", "flotilla help members remove"},
		prepare: func(p *program, _ *flag.FlagSet) func(context.Context, []string) error {
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					writeHelp(p.stdout)
					return nil
				}
				c, rest, ok := lookup(args)
				if !ok {
					return usagef("there is no command %q; \"flotilla help\" lists them", args[0])
				}
				if len(rest) > 0 {
					return usagef("there is one COMMAND; %q is too much", rest[0])
				}
				writeCommandHelp(p.stdout, c)
				return nil
			}
		},
	}
}

func writeHelp(w io.Writer) {
	fmt.Fprint(w, "Flotilla looks after clusters: it shows them, changes who is in them and who\n"+
		"does what, and brings certificates in and out.\n\nusage: flotilla COMMAND [flags] [arguments]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-16s  %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, `
"flotilla help COMMAND" says more. Exit codes: 0 all is done, 1 something was
refused, failed or interrupted, 2 wrong usage, 3 the cluster gave no answer.
`)
}

func writeCommandHelp(w io.Writer, c command) {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	c.prepare(&program{env: func(string) string { return "" }}, flags)
	usage := "flotilla " + c.name
	var lines []string
	flags.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		if value != "" {
			value = " " + value
		}
		lines = append(lines, fmt.Sprintf("  -%s%s\n%s\n", f.Name, value, indent(text, "        ")))
	})
	if len(lines) > 0 {
		usage += " [flags]"
	}
	if c.args != "" {
		usage += " " + c.args
	}
	fmt.Fprintf(w, "usage: %s\n\n%s.\n", usage, strings.ToUpper(c.summary[:1])+c.summary[1:])
	if c.text != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.text))
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\nFlags:\n%s", strings.Join(lines, ""))
	}
	if len(c.examples) > 0 {
		fmt.Fprintf(w, "\nExamples:\n%s\n", indent(strings.Join(c.examples, "\n"), "  "))
	}
}

func indent(text, by string) string { return by + strings.ReplaceAll(text, "\n", "\n"+by) }
