// Package script runs tests that are written as text files. A file consists of blocks like this:
//
//	# A record can be read after it was stored.
//	store a key value=1
//	load key
//	----
//	entry 3: ok
//	1
//
// The lines before ---- are commands, one each. The lines after it, up to an empty line, are the
// output of the commands together. A command is a name, arguments, and options of the form
// name=value. Lines that begin with # are comments. The caller gives the commands their meaning.
package script

import (
	"os"
	"strconv"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// T is the part of *testing.T that a script needs.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

const separator = "----"

// Run runs the commands of the file at path one after another, and compares what do returns for
// them with the output in the file. If rewrite is true, it writes the new output into the file
// instead.
func Run(t T, path string, rewrite bool, do func(*Command) string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v", err)
	}
	lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	var file strings.Builder // the file with the new output
	for i := 0; i < len(lines); {
		var got, want strings.Builder
		for ; i < len(lines) && lines[i] != separator; i++ {
			file.WriteString(lines[i] + "\n")
			if c := parse(t, path, i+1, lines[i]); c != nil {
				writeLines(&got, do(c))
				c.end()
			}
		}
		if i == len(lines) {
			if got.Len() > 0 {
				t.Fatalf("%s: the last block has no line %s", path, separator)
			}
			break
		}
		at := i + 1
		for i++; i < len(lines) && lines[i] != ""; i++ {
			writeLines(&want, lines[i])
		}
		file.WriteString(separator + "\n" + got.String())
		if diff := cmp.Diff(want.String(), got.String()); diff != "" && !rewrite {
			t.Errorf("%s:%d (-want +got):\n%s", path, at, diff)
		}
	}
	if rewrite {
		if err := os.WriteFile(path, []byte(file.String()), 0o644); err != nil {
			t.Fatalf("%v", err)
		}
	}
}

func writeLines(b *strings.Builder, text string) {
	if text = strings.TrimRight(text, "\n"); text != "" {
		b.WriteString(text + "\n")
	}
}

// Command is one line of a script. Its methods end the test if the line is wrong.
type Command struct {
	// Name is the first word of the line.
	Name string

	t       T
	where   string
	args    []string
	options map[string]string
}

func parse(t T, path string, line int, text string) *Command {
	words := strings.Fields(text)
	if len(words) == 0 || strings.HasPrefix(words[0], "#") {
		return nil
	}
	c := &Command{Name: words[0], t: t, where: path + ":" + strconv.Itoa(line), options: make(map[string]string)}
	for _, w := range words[1:] {
		if name, value, ok := strings.Cut(w, "="); ok {
			c.options[name] = value
		} else {
			c.args = append(c.args, w)
		}
	}
	return c
}

// Fatalf ends the test with a message that begins with the place of the command.
func (c *Command) Fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf(c.where+": "+c.Name+": "+format, args...)
}

// Arg takes the next argument. It ends the test if there is none.
func (c *Command) Arg() string {
	if len(c.args) == 0 {
		c.Fatalf("an argument is missing")
	}
	a := c.args[0]
	c.args = c.args[1:]
	return a
}

// Args takes all arguments that are left.
func (c *Command) Args() []string {
	all := c.args
	c.args = nil
	return all
}

// Option takes an option. It returns otherwise if the command does not have the option.
func (c *Command) Option(name, otherwise string) string {
	if v, ok := c.options[name]; ok {
		delete(c.options, name)
		return v
	}
	return otherwise
}

// Uint takes an option that is a number. It returns otherwise if the command does not have the
// option.
func (c *Command) Uint(name string, otherwise uint64) uint64 {
	v, err := strconv.ParseUint(c.Option(name, strconv.FormatUint(otherwise, 10)), 10, 64)
	if err != nil {
		c.Fatalf("%v", err)
	}
	return v
}

// end ends the test if an argument or an option was not taken.
func (c *Command) end() {
	c.t.Helper()
	if len(c.args) > 0 || len(c.options) > 0 {
		c.Fatalf("unknown arguments %v, options %v", c.args, c.options)
	}
}
