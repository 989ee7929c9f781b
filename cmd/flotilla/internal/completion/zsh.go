package completion

import (
	"fmt"
	"io"
	"strings"
)

func writeZsh(w io.Writer, all words) {
	fmt.Fprint(w, `#compdef flotilla
# Completion of flotilla's commands for zsh, by "flotilla completion zsh".
_flotilla() {
	local -a first second
	first=(
`)
	for _, word := range all.first() {
		fmt.Fprintf(w, "\t\t%s\n", quoted(word+":"+all.summary(word)))
	}
	fmt.Fprint(w, `	)
	if (( CURRENT == 2 )); then
		_describe command first
		return
	fi
	if (( CURRENT == 3 )); then
		case $words[2] in
`)
	for _, word := range all.first() {
		if second := all.second(word); len(second) > 0 {
			fmt.Fprintf(w, "\t\t%s) second=(%s) ;;\n", word, strings.Join(second, " "))
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
	for _, c := range all.completable() {
		writeZshCommand(w, c)
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

// writeZshCommand writes the case of one command. The script hides the words before the command's
// last one, because _arguments takes the first word for the program.
func writeZshCommand(w io.Writer, c command) {
	fmt.Fprintf(w, "\t%s)\n\t\tshift %d words\n\t\t(( CURRENT -= %d ))\n\t\t_arguments", c.pattern(), c.length(), c.length())
	for _, f := range c.flags {
		spec := "-" + f.name + "[" + strings.NewReplacer("[", "(", "]", ")").Replace(f.summary) + "]"
		switch {
		case f.isFile():
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
