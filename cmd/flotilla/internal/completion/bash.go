package completion

import (
	"fmt"
	"io"
	"strings"
)

func writeBash(w io.Writer, all words) {
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
`, strings.Join(all.first(), " "), strings.Join(all.valued(true), "|"), strings.Join(all.valued(false), "|"))
	for _, first := range all.first() {
		if second := all.second(first); len(second) > 0 {
			fmt.Fprintf(w, "\t\t%s) words=%q ;;\n", first, strings.Join(second, " "))
		}
	}
	fmt.Fprint(w, "\t\tesac\n\tfi\n\tcase \"$one $two\" in\n")
	for _, c := range all.completable() {
		files := ""
		if c.files {
			files = " files=yes"
		}
		fmt.Fprintf(w, "\t%s) flags=%q%s ;;\n", c.pattern(), c.flagWords(), files)
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
