package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/remote"
)

// Run runs the command that args name, and returns the exit code of the program. An end of ctx
// interrupts the command.
func (t Table) Run(ctx context.Context, env *Env, args []string) int {
	if len(args) == 0 {
		writeHelp(env.Stderr, t)
		return ExitUsage
	}
	if name := args[0]; name == "-h" || name == "-help" || name == "--help" {
		args = append([]string{"help"}, args[1:]...)
	}
	c, rest, ok := t.lookup(args)
	if !ok {
		fmt.Fprintf(env.Stderr, "flotilla: there is no command %q; %s\n", args[0], t.hint(args[0]))
		return ExitUsage
	}
	err := t.runCommand(ctx, env, c, rest)
	if errors.Is(err, flag.ErrHelp) {
		writeCommandHelp(env.Stdout, c)
		return ExitOK
	}
	return report(ctx, env, c.Name, err)
}

// hint says what to type instead of a word that is no command, or only the first half of some.
func (t Table) hint(word string) string {
	var whole []string
	for _, c := range t {
		if strings.HasPrefix(c.Name, word+" ") {
			whole = append(whole, fmt.Sprintf("%q", "flotilla "+c.Name))
		}
	}
	if len(whole) == 0 {
		return `see "flotilla help"`
	}
	return "there are " + strings.Join(whole, ", ")
}

func (t Table) runCommand(ctx context.Context, env *Env, c Command, args []string) error {
	flags, action := c.prepare(env)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return &UsageError{err.Error()}
	}
	args = flags.Args()
	if err := checkSubcommand(t, c, args); err != nil {
		return err
	}
	if !c.ChecksArgs {
		if err := checkArgs(c, args); err != nil {
			return err
		}
	}
	return action(ctx, args)
}

// report prints why the command failed, and returns the exit code.
func report(ctx context.Context, env *Env, name string, err error) int {
	var usage *UsageError
	var unreachable *remote.UnreachableError
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, ErrReported):
		return ExitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(env.Stderr, "flotilla %s: %v\nSee \"flotilla help %s\".\n", name, err, name)
		return ExitUsage
	case errors.As(err, &unreachable):
		fmt.Fprintf(env.Stderr, "flotilla %s: %v\n", name, err)
		return ExitUnreachable
	case ctx.Err() != nil:
		fmt.Fprintf(env.Stderr, "flotilla %s: interrupted; repeat it to complete it\n", name)
		return ExitFailed
	}
	fmt.Fprintf(env.Stderr, "flotilla %s: %v\n", name, err)
	return ExitFailed
}
