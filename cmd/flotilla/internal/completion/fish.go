package completion

import (
	"fmt"
	"io"
	"strings"
)

func writeFish(w io.Writer, all words) {
	fmt.Fprint(w, "# Completion of flotilla's commands for fish, by \"flotilla completion fish\".\ncomplete -c flotilla -f\n")
	for _, word := range all.first() {
		fmt.Fprintf(w, "complete -c flotilla -n __fish_use_subcommand -a %s -d %s\n", word, quoted(all.summary(word)))
	}
	for _, word := range all.first() {
		if second := strings.Join(all.second(word), " "); second != "" {
			when := "__fish_seen_subcommand_from " + word + "; and not __fish_seen_subcommand_from " + second
			fmt.Fprintf(w, "complete -c flotilla -n '%s' -a %s\n", when, quoted(second))
		}
	}
	for _, c := range all {
		writeFishCommand(w, all, c)
	}
}

func writeFishCommand(w io.Writer, all words, c command) {
	first, second, two := strings.Cut(c.name, " ")
	when := "__fish_seen_subcommand_from " + first
	if two {
		when += "; and __fish_seen_subcommand_from " + second
	} else if more := all.second(first); len(more) > 0 {
		when += "; and not __fish_seen_subcommand_from " + strings.Join(more, " ")
	}
	for _, f := range c.flags {
		value := ""
		switch {
		case f.isFile():
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
