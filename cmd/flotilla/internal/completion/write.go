package completion

import (
	"fmt"
	"io"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
)

// Write prints the script for a shell. The error says which shells there are.
func Write(w io.Writer, shell string, table cli.Table) error {
	all := wordsOf(table)
	switch shell {
	case "bash":
		writeBash(w, all)
	case "zsh":
		writeZsh(w, all)
	case "fish":
		writeFish(w, all)
	default:
		return fmt.Errorf("SHELL is bash, zsh or fish, not %q", shell)
	}
	return nil
}
