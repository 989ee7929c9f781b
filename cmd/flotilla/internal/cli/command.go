package cli

import (
	"context"
	"flag"
	"io"
	"strings"
)

// Action does what a command is for. The arguments are those after the flags. Their number has been
// checked against Command.Args.
type Action func(ctx context.Context, args []string) error

// Command is one thing that the program can do.
type Command struct {
	// Name is one word or two: "members", "members remove".
	Name string

	// Args names the arguments that follow the flags: "DIR", "ROLE NODE". One in brackets,
	// "[NODE]", may be missing.
	Args string

	// ChecksArgs says that the action checks the number of arguments itself.
	ChecksArgs bool

	// Summary says in one line what the command does. It has no full stop.
	Summary string

	// Text is the rest of the help, in lines of at most 80 characters.
	Text string

	// Examples are command lines.
	Examples []string

	// Prepare registers the flags and returns the action, which runs once they are parsed. It must
	// not use the Env itself: help calls it with an empty one.
	Prepare func(env *Env, flags *flag.FlagSet) Action
}

// Flags returns the flags of the command, to list them.
func (c Command) Flags() *flag.FlagSet {
	flags, _ := c.prepare(new(Env))
	return flags
}

func (c Command) prepare(env *Env) (*flag.FlagSet, Action) {
	flags := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags, c.Prepare(env, flags)
}

// Table is all commands, in the order of the help.
type Table []Command

// Find returns the command of a name.
func (t Table) Find(name string) (Command, bool) {
	for _, c := range t {
		if c.Name == name {
			return c, true
		}
	}
	return Command{}, false
}

// lookup returns the command that args begin with, and what follows it. It prefers a command of two
// words.
func (t Table) lookup(args []string) (c Command, rest []string, ok bool) {
	if len(args) > 1 {
		if c, ok = t.Find(args[0] + " " + args[1]); ok {
			return c, args[2:], true
		}
	}
	c, ok = t.Find(args[0])
	return c, args[1:], ok
}

// hasSubcommands reports whether other commands begin with the word.
func (t Table) hasSubcommands(word string) bool {
	for _, c := range t {
		if strings.HasPrefix(c.Name, word+" ") {
			return true
		}
	}
	return false
}

// JSONFlag registers the flag of commands that can print JSON.
func JSONFlag(flags *flag.FlagSet) *bool {
	return flags.Bool("json", false, "print JSON, for programs")
}
