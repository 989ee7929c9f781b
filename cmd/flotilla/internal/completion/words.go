package completion

import (
	"flag"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
)

// words is what a shell has to know of all commands.
type words []command

type command struct {
	name, summary string
	files         bool // its arguments are files
	flags         []option
}

// option is one flag of a command.
type option struct {
	name, summary string
	value         string // what follows it; empty: nothing
}

func wordsOf(table cli.Table) words {
	var out words
	for _, c := range table {
		one := command{name: c.Name, summary: c.Summary, files: strings.Contains(c.Args, "DIR")}
		c.Flags().VisitAll(func(f *flag.Flag) {
			value, text := flag.UnquoteUsage(f)
			if end := strings.IndexAny(text, ":;\n"); end > 0 {
				text = text[:end] // the rest is detail
			}
			one.flags = append(one.flags, option{f.Name, text, value})
		})
		out = append(out, one)
	}
	return out
}

// first returns the first words of all commands, in their order.
func (all words) first() []string {
	var out []string
	for _, c := range all {
		if word, _, _ := strings.Cut(c.name, " "); !slices.Contains(out, word) {
			out = append(out, word)
		}
	}
	return out
}

// second returns the words that may follow a first one.
func (all words) second(first string) []string {
	switch first {
	case "completion":
		return Shells()
	case "help":
		return slices.DeleteFunc(all.first(), func(w string) bool { return w == "help" })
	}
	var out []string
	for _, c := range all {
		if word, second, ok := strings.Cut(c.name, " "); ok && word == first {
			out = append(out, second)
		}
	}
	return out
}

// summary returns the summary of the command of one word.
func (all words) summary(word string) string {
	for _, c := range all {
		if c.name == word {
			return c.summary
		}
	}
	return ""
}

// completable returns the commands that have something to complete after their names. Those of two
// words come first, because patterns for the others would match them too.
func (all words) completable() []command {
	var one, two []command
	for _, c := range all {
		switch {
		case len(c.flags) == 0 && !c.files:
		case c.length() == 2:
			two = append(two, c)
		default:
			one = append(one, c)
		}
	}
	return append(two, one...)
}

// valued returns the flags that a value follows: either those that take a file, or the others.
func (all words) valued(file bool) []string {
	var names []string
	for _, c := range all {
		for _, f := range c.flags {
			if f.value != "" && f.isFile() == file && !slices.Contains(names, "-"+f.name) {
				names = append(names, "-"+f.name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// length returns the number of words of the command.
func (c command) length() int { return strings.Count(c.name, " ") + 1 }

// pattern returns the shell pattern of the first two words of a command line, joined by a space.
func (c command) pattern() string {
	if c.length() == 2 {
		return `"` + c.name + `"`
	}
	return `"` + c.name + ` "*`
}

func (c command) flagWords() string {
	var out []string
	for _, f := range c.flags {
		out = append(out, "-"+f.name)
	}
	return strings.Join(out, " ")
}

func (f option) isFile() bool { return f.value == "FILE" }

// Shells returns the shells that there are scripts for.
func Shells() []string { return []string{"bash", "zsh", "fish"} }

// quoted returns a text in single quotes, as all three shells read it.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
