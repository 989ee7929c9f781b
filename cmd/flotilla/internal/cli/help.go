package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

// HelpCommand returns the command that explains the others. The table is asked when it runs.
func HelpCommand(table func() Table) Command {
	return Command{
		Name:       "help",
		Args:       "[COMMAND]",
		ChecksArgs: true, // the name of a COMMAND may be two words
		Summary:    "explain the commands",
		Text:       "Without a COMMAND it lists all commands.",
		Examples:   []string{"flotilla help import", "flotilla help members remove"},
		Prepare: func(env *Env, _ *flag.FlagSet) Action {
			return func(_ context.Context, args []string) error { return help(env.Stdout, table(), args) }
		},
	}
}

func help(w io.Writer, t Table, args []string) error {
	if len(args) == 0 {
		writeHelp(w, t)
		return nil
	}
	c, rest, ok := t.lookup(args)
	if !ok {
		return Usagef("there is no command %q; \"flotilla help\" lists them", args[0])
	}
	if len(rest) > 0 {
		return Usagef("there is one COMMAND; %q is one too many", rest[0])
	}
	writeCommandHelp(w, c)
	return nil
}

func writeHelp(w io.Writer, t Table) {
	fmt.Fprint(w, `Flotilla operates clusters: it shows their state, manages members and roles, and
imports and exports certificates.

usage: flotilla COMMAND [flags] [arguments]

`)
	for _, c := range t {
		fmt.Fprintf(w, "  %-16s  %s\n", c.Name, c.Summary)
	}
	fmt.Fprint(w, `
"flotilla help COMMAND" explains a command. Exit codes: 0 everything is done,
1 something was refused, failed or was interrupted, 2 wrong usage, 3 no answer
from the cluster.
`)
}

func writeCommandHelp(w io.Writer, c Command) {
	usage := "flotilla " + c.Name
	var lines []string
	c.Flags().VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		if value != "" {
			value = " " + value
		}
		lines = append(lines, fmt.Sprintf("  -%s%s\n%s\n", f.Name, value, indent(text, "        ")))
	})
	if len(lines) > 0 {
		usage += " [flags]"
	}
	if c.Args != "" {
		usage += " " + c.Args
	}
	fmt.Fprintf(w, "usage: %s\n\n%s.\n", usage, strings.ToUpper(c.Summary[:1])+c.Summary[1:])
	if c.Text != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.Text))
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\nFlags:\n%s", strings.Join(lines, ""))
	}
	if len(c.Examples) > 0 {
		fmt.Fprintf(w, "\nExamples:\n%s\n", indent(strings.Join(c.Examples, "\n"), "  "))
	}
}

func indent(text, by string) string { return by + strings.ReplaceAll(text, "\n", "\n"+by) }
