package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"

	"github.com/flotilla-ha/flotilla/internal/remote"
)

// Exit codes.
const (
	exitOK          = 0
	exitRefused     = 1 // something was refused, failed or interrupted
	exitUsage       = 2
	exitUnreachable = 3
)

// errRefused ends a command whose report says what was refused.
var errRefused = errors.New("something was refused")

// usageError says that the command was not called as it should be.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// program is one run: what a process gets from its world.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	terminal       bool       // stderr is watched: show progress
	screen         bool       // stdout is watched: colours, and what is shown may be shown anew in its place
	height         func() int // lines of the screen now, 0 if that is not known; nil: it never is

	dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil: the network
}

// command is one thing that the program does. Another one is a function that returns such a value, and a line in commands.
type command struct {
	name     string   // one word or two: "members", "members remove"
	args     string   // what follows the flags: "DIR"
	summary  string   // one line
	text     string   // the rest of the help, lines of at most 80 characters
	examples []string // command lines

	// prepare registers the flags and returns the action, which is called once they are set.
	prepare func(p *program, flags *flag.FlagSet) func(ctx context.Context, args []string) error
}

// commands returns all commands in the order of the help.
func commands() []command {
	return []command{
		keygenCommand(),
		statusCommand(),
		healthCommand(),
		membersCommand(),
		removeCommand(),
		transferCommand(),
		rolesCommand(),
		moveCommand(),
		yieldCommand(),
		drainCommand(),
		undrainCommand(),
		inspectCommand(),
		importCommand(),
		exportCommand(),
		completionCommand(),
		versionCommand(),
		helpCommand(),
	}
}

// find returns the command of a name.
func find(name string) (command, bool) {
	for _, c := range commands() {
		if c.name == name {
			return c, true
		}
	}
	return command{}, false
}

// lookup returns the command that args begin with, of two words if there is one, and what follows it.
func lookup(args []string) (c command, rest []string, ok bool) {
	if len(args) > 1 {
		if c, ok = find(args[0] + " " + args[1]); ok {
			return c, args[2:], true
		}
	}
	c, ok = find(args[0])
	return c, args[1:], ok
}

func (p *program) run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		writeHelp(p.stderr)
		return exitUsage
	}
	if name := args[0]; name == "-h" || name == "-help" || name == "--help" {
		args = append([]string{"help"}, args[1:]...)
	}
	c, rest, ok := lookup(args)
	if !ok {
		fmt.Fprintf(p.stderr, "flotilla: there is no command %q; see \"flotilla help\"\n", args[0])
		return exitUsage
	}
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	action := c.prepare(p, flags)
	err := flags.Parse(rest)
	if errors.Is(err, flag.ErrHelp) {
		writeCommandHelp(p.stdout, c)
		return exitOK
	}
	if err != nil {
		err = &usageError{err.Error()}
	} else {
		err = action(ctx, flags.Args())
	}
	return p.exit(ctx, c, err)
}

// exit says what went wrong, and returns the exit code for it.
func (p *program) exit(ctx context.Context, c command, err error) int {
	var usage *usageError
	var unreachable *remote.UnreachableError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errRefused):
		return exitRefused
	case errors.As(err, &usage):
		fmt.Fprintf(p.stderr, "flotilla %s: %v\nSee \"flotilla help %s\".\n", c.name, err, c.name)
		return exitUsage
	case errors.As(err, &unreachable):
		fmt.Fprintf(p.stderr, "flotilla %s: %v\n", c.name, err)
		return exitUnreachable
	case ctx.Err() != nil:
		fmt.Fprintf(p.stderr, "flotilla %s: interrupted; repeat it to complete it\n", c.name)
		return exitRefused
	}
	fmt.Fprintf(p.stderr, "flotilla %s: %v\n", c.name, err)
	return exitRefused
}

// oneArg returns the only argument.
func oneArg(args []string, name string) (string, error) {
	switch {
	case len(args) == 0 || args[0] == "":
		return "", usagef("%s is missing", name)
	case len(args) > 1:
		return "", usagef("there is one %s, and flags stand before it; %q is too much", name, args[1])
	}
	return args[0], nil
}

// twoArgs returns the only two arguments.
func twoArgs(args []string, first, second string) (string, string, error) {
	switch {
	case len(args) == 0 || args[0] == "":
		return "", "", usagef("%s is missing", first)
	case len(args) == 1 || args[1] == "":
		return "", "", usagef("%s is missing", second)
	case len(args) > 2:
		return "", "", usagef("there is one %s and one %s, and flags stand before them; %q is too much", first, second, args[2])
	}
	return args[0], args[1], nil
}

// noWord is noArgs for a command whose name other commands begin with.
func noWord(name string, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if _, ok := find(name + " " + args[0]); ok {
		return usagef("flags stand behind both words: flotilla %s %s [flags]", name, args[0])
	}
	return usagef("there is no command %q", name+" "+args[0])
}

// noArgs refuses arguments.
func noArgs(args []string) error {
	if len(args) > 0 {
		return usagef("it takes no arguments; %q is too much", args[0])
	}
	return nil
}
