package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/diagnosis"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

// StartProgress shows on Stderr how far a long run is. The caller ends it.
func (e *Env) StartProgress(doing string, goal term.Goal) *term.Progress {
	if e.Quiet {
		return term.StartProgress(nil, false, doing, goal)
	}
	return term.StartProgress(e.Stderr, e.Progress, doing, goal)
}

// Await runs f and shows the time that it takes.
func (e *Env) Await(doing string, f func()) {
	p := e.StartProgress(doing, term.Goal{})
	defer p.End()
	f()
}

// GoalOf returns how many bytes an input has. That of a file is known.
func GoalOf(r io.Reader) term.Goal {
	goal := term.Goal{Bytes: true}
	if f, ok := r.(*os.File); ok {
		if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
			goal.Total = fi.Size()
		}
	}
	return goal
}

// GrowthOf is the goal of a run that writes about total bytes into a directory, and says nothing
// meanwhile. What it has done shows in the size of the directory.
func GrowthOf(dir string, total int64) term.Goal {
	before := diagnosis.OfDisk(dir).Bytes
	return term.Goal{
		Total: total, Bytes: true, About: true, Done: func() int64 { return max(diagnosis.OfDisk(dir).Bytes-before, 0) },
	}
}

// Reading says that a directory is read, and how large it is.
func Reading(dir string) string {
	return fmt.Sprintf("reading %s, %s", plaintext.Safe(dir), plaintext.Size(diagnosis.OfDisk(dir).Bytes))
}
