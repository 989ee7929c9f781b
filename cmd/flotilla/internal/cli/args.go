package cli

import "strings"

// checkArgs compares the number of arguments with the command's Args.
func checkArgs(c Command, args []string) error {
	names := strings.Fields(c.Args)
	for i, name := range names {
		plain := strings.Trim(name, "[]")
		optional := plain != name
		if i >= len(args) && optional {
			break
		}
		if i >= len(args) || args[i] == "" {
			return Usagef("%s is missing", plain)
		}
		names[i] = plain
	}
	if len(args) <= len(names) {
		return nil
	}
	extra := args[len(names)]
	switch len(names) {
	case 0:
		return Usagef("it takes no arguments; %q is one too many", extra)
	case 1:
		return Usagef("there is one %s, and flags go before it; %q is one too many", names[0], extra)
	}
	return Usagef("there is one %s, and flags go before them; %q is one too many",
		strings.Join(names, " and one "), extra)
}

// checkSubcommand refuses arguments of a command that has none but whose name other commands begin
// with.
func checkSubcommand(t Table, c Command, args []string) error {
	if len(args) == 0 || c.Args != "" || !t.hasSubcommands(c.Name) {
		return nil
	}
	if _, ok := t.Find(c.Name + " " + args[0]); ok {
		return Usagef("flags go after both words: flotilla %s %s [flags]", c.Name, args[0])
	}
	return Usagef("there is no command %q", c.Name+" "+args[0])
}
