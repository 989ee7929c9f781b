package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

func completionCommand() command {
	return command{
		name:    "completion",
		args:    "SHELL",
		summary: "print what completes these commands in bash, zsh or fish",
		examples: []string{
			"flotilla completion bash > /etc/bash_completion.d/flotilla",
			"flotilla completion zsh > \"${fpath[1]}/_flotilla\"",
			"flotilla completion fish > ~/.config/fish/completions/flotilla.fish",
		},
		prepare: func(p *program, _ *flag.FlagSet) func(context.Context, []string) error {
			return func(_ context.Context, args []string) error {
				shell, err := oneArg(args, "SHELL")
				if err != nil {
					return err
				}
				switch shell {
				case "bash":
					writeBash(p.stdout)
				case "zsh":
					writeZsh(p.stdout)
				case "fish":
					writeFish(p.stdout)
				default:
					return usagef("SHELL is bash, zsh or fish, not %q", shell)
				}
				return nil
			}
		},
	}
}

// completed is what a shell has to know of a command.
type completed struct {
	name, summary string
	files         bool // its arguments are files
	flags         []completedFlag
}

// completedFlag is one flag of a command.
type completedFlag struct {
	name, summary string
	value         string // what follows it; empty: nothing
}

func completions() []completed {
	var out []completed
	for _, c := range commands() {
		flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.prepare(&program{env: func(string) string { return "" }}, flags)
		one := completed{name: c.name, summary: c.summary, files: strings.Contains(c.args, "DIR")}
		flags.VisitAll(func(f *flag.Flag) {
			value, text := flag.UnquoteUsage(f)
			if end := strings.IndexAny(text, ":;\n"); end > 0 {
				text = text[:end] // the gist of it
			}
			one.flags = append(one.flags, completedFlag{f.Name, text, value})
		})
		out = append(out, one)
	}
	return out
}

// firstWords returns the first words of all commands, in their order.
func firstWords(all []completed) []string {
	var words []string
	for _, c := range all {
		if word, _, _ := strings.Cut(c.name, " "); !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return words
}

// secondWords returns the words that may follow a first one.
func secondWords(all []completed, first string) []string {
	switch first {
	case "completion":
		return []string{"bash", "zsh", "fish"}
	case "help":
		return slices.DeleteFunc(firstWords(all), func(w string) bool { return w == "help" })
	}
	var words []string
	for _, c := range all {
		if word, second, ok := strings.Cut(c.name, " "); ok && word == first {
			words = append(words, second)
		}
	}
	return words
}

func (c completed) flagWords() string {
	var words []string
	for _, f := range c.flags {
		words = append(words, "-"+f.name)
	}
	return strings.Join(words, " ")
}

// valued returns the flags that a value follows: those that take a file, or the others.
func valued(all []completed, file bool) []string {
	var names []string
	for _, c := range all {
		for _, f := range c.flags {
			if f.value != "" && (f.value == "FILE") == file && !slices.Contains(names, "-"+f.name) {
				names = append(names, "-"+f.name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func writeBash(w io.Writer) {
	all := completions()
	fmt.Fprintf(w, `# Completion of flotilla's commands for bash, by "flotilla completion bash".
_flotilla() {
	local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" words="" flags="" files=""
	local one="${COMP_WORDS[1]}" two=""
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		COMPREPLY=($(compgen -W "%s" -- "$cur"))
		return
	fi
	[ "$COMP_CWORD" -gt 2 ] && two="${COMP_WORDS[2]}"
	case "$prev" in
	%s)
		COMPREPLY=($(compgen -f -- "$cur"))
		return ;;
	%s)
		return ;;
	esac
	if [ "$COMP_CWORD" -eq 2 ]; then
		case "$one" in
`, strings.Join(firstWords(all), " "), strings.Join(valued(all, true), "|"), strings.Join(valued(all, false), "|"))
	for _, first := range firstWords(all) {
		if words := secondWords(all, first); len(words) > 0 {
			fmt.Fprintf(w, "\t\t%s) words=%q ;;\n", first, strings.Join(words, " "))
		}
	}
	fmt.Fprint(w, "\t\tesac\n\tfi\n\tcase \"$one $two\" in\n")
	// commands of two words first: the others' patterns would match them too
	for _, two := range []bool{true, false} {
		for _, c := range all {
			if strings.Contains(c.name, " ") != two || len(c.flags) == 0 && !c.files {
				continue
			}
			pattern := "\"" + c.name + "\""
			if !two {
				pattern = "\"" + c.name + " \"*"
			}
			files := ""
			if c.files {
				files = " files=yes"
			}
			fmt.Fprintf(w, "\t%s) flags=%q%s ;;\n", pattern, c.flagWords(), files)
		}
	}
	fmt.Fprint(w, `	esac
	case "$cur" in
	-*) COMPREPLY=($(compgen -W "$flags" -- "$cur")) ;;
	*)
		COMPREPLY=($(compgen -W "$words" -- "$cur"))
		[ -n "$files" ] && COMPREPLY+=($(compgen -f -- "$cur")) ;;
	esac
}
complete -o filenames -F _flotilla flotilla
`)
}

func writeZsh(w io.Writer) {
	all := completions()
	fmt.Fprint(w, `#compdef flotilla
# Completion of flotilla's commands for zsh, by "flotilla completion zsh".
_flotilla() {
	local -a first second
	first=(
`)
	for _, word := range firstWords(all) {
		c, _ := find(word)
		fmt.Fprintf(w, "\t\t%s\n", quoted(word+":"+c.summary))
	}
	fmt.Fprint(w, `	)
	if (( CURRENT == 2 )); then
		_describe command first
		return
	fi
	if (( CURRENT == 3 )); then
		case $words[2] in
`)
	for _, word := range firstWords(all) {
		if more := secondWords(all, word); len(more) > 0 {
			fmt.Fprintf(w, "\t\t%s) second=(%s) ;;\n", word, strings.Join(more, " "))
		}
	}
	fmt.Fprint(w, `		esac
		if (( $#second )) && [[ $PREFIX != -* ]]; then
			compadd -a second
			return
		fi
	fi
	case "$words[2] $words[3]" in
`)
	for _, two := range []bool{true, false} {
		for _, c := range all {
			if strings.Contains(c.name, " ") != two || len(c.flags) == 0 && !c.files {
				continue
			}
			pattern := "\"" + c.name + "\""
			if !two {
				pattern = "\"" + c.name + " \"*"
			}
			// _arguments is to see the command's last word as the program: words before the flags would end them
			fmt.Fprintf(w, "\t%s)\n\t\tshift %d words\n\t\t(( CURRENT -= %d ))\n\t\t_arguments", pattern, strings.Count(c.name, " ")+1, strings.Count(c.name, " ")+1)
			for _, f := range c.flags {
				spec := "-" + f.name + "[" + strings.NewReplacer("[", "(", "]", ")").Replace(f.summary) + "]"
				switch {
				case f.value == "FILE":
					spec += ":" + f.value + ":_files"
				case f.value != "":
					spec += ":" + f.value + ":"
				}
				fmt.Fprintf(w, " \\\n\t\t\t%s", quoted(spec))
			}
			if c.files {
				fmt.Fprintf(w, " \\\n\t\t\t%s", quoted("*:DIR:_files -/"))
			}
			fmt.Fprint(w, " ;;\n")
		}
	}
	fmt.Fprint(w, `	esac
}
if [ "$funcstack[1]" = "_flotilla" ]; then
	_flotilla "$@"
else
	compdef _flotilla flotilla
fi
`)
}

func writeFish(w io.Writer) {
	all := completions()
	fmt.Fprint(w, "# Completion of flotilla's commands for fish, by \"flotilla completion fish\".\ncomplete -c flotilla -f\n")
	for _, word := range firstWords(all) {
		c, _ := find(word)
		fmt.Fprintf(w, "complete -c flotilla -n __fish_use_subcommand -a %s -d %s\n", word, quoted(c.summary))
	}
	for _, word := range firstWords(all) {
		if more := secondWords(all, word); len(more) > 0 {
			fmt.Fprintf(w, "complete -c flotilla -n '__fish_seen_subcommand_from %s; and not __fish_seen_subcommand_from %s' -a %s\n", word, strings.Join(more, " "), quoted(strings.Join(more, " ")))
		}
	}
	for _, c := range all {
		first, second, two := strings.Cut(c.name, " ")
		when := "__fish_seen_subcommand_from " + first
		if two {
			when += "; and __fish_seen_subcommand_from " + second
		} else if more := secondWords(all, first); len(more) > 0 {
			when += "; and not __fish_seen_subcommand_from " + strings.Join(more, " ")
		}
		for _, f := range c.flags {
			value := ""
			switch {
			case f.value == "FILE":
				value = " -r -F"
			case f.value != "":
				value = " -x"
			}
			fmt.Fprintf(w, "complete -c flotilla -n '%s' -o %s%s -d %s\n", when, f.name, value, quoted(f.summary))
		}
		if c.files {
			fmt.Fprintf(w, "complete -c flotilla -n '%s' -F\n", when)
		}
	}
}

// quoted is a text in single quotes, as all three shells read it.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
