package cli

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
)

// Env is what a run of the program gets from its process.
type Env struct {
	// Stdin, Stdout and Stderr are the standard streams.
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	// Getenv returns the value of an environment variable.
	Getenv func(name string) string

	// Screen says that a person watches Stdout: it gets colours, and text may be redrawn in place.
	Screen bool

	// Height returns how many lines the screen has now, 0 if that is not known.
	Height func() int

	// Progress says that a person watches Stderr: the progress of long runs is one line there, which
	// changes. Nobody watches: it is a line every few seconds.
	Progress bool

	// Quiet says that long runs show no progress. The action sets it if it has a flag for that.
	Quiet bool

	// Dial replaces the network. Nil means the network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Style returns the style of Stdout. Colours are for people at a terminal who have not set NO_COLOR
// (no-color.org).
func (e *Env) Style() term.Style {
	return term.Style{On: e.Screen && e.Getenv("NO_COLOR") == "" && e.Getenv("TERM") != "dumb"}
}

// Wrap breaks a long line for a screen. Programs that read the output get one line.
func (e *Env) Wrap(text string) string {
	if e.Screen {
		return term.Wrap(text)
	}
	return text
}

// OpenInput opens a file to read. The name "-" is the standard input.
func (e *Env) OpenInput(file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(e.Stdin), nil
	}
	return os.Open(file)
}

// WriteJSON prints a value as JSON, indented over several lines.
func (e *Env) WriteJSON(v any) error {
	enc := json.NewEncoder(e.Stdout)
	enc.SetIndent("", "\t")
	return enc.Encode(v)
}

// WriteJSONLine prints a value as JSON in one line.
func (e *Env) WriteJSONLine(v any) error { return json.NewEncoder(e.Stdout).Encode(v) }
