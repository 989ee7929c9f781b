package main

import (
	"os"
	"strings"
	"testing"
)

// The script for the help looks at every command, and no example is of another program.
func TestHelp(t *testing.T) {
	script, err := os.ReadFile("testdata/script/help.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands() {
		if !strings.Contains(string(script), "\nflotilla help "+c.Name+"\n") {
			t.Errorf("help.txtar does not look at %q", c.Name)
		}
		for line := range strings.Lines(c.Text) {
			if len(line) > 81 {
				t.Errorf("the help of %q has a line of %d characters: %s", c.Name, len(line)-1, line)
			}
		}
		for _, example := range c.Examples {
			if !strings.Contains(example, "flotilla "+c.Name) && !strings.Contains(example, "flotilla undrain") {
				t.Errorf("an example of %q is about something else: %s", c.Name, example)
			}
		}
	}
}
