package process

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// maxLines bounds a log of a node that runs for long.
const maxLines = 100_000

// Log keeps the last lines that are written to it.
type Log struct {
	to io.Writer // gets all lines too; nil: nothing does

	mu    sync.Mutex
	lines []string
	part  []byte // of a line without its end yet
}

// NewLog returns an empty log, which passes its lines on to a writer unless that is nil.
func NewLog(to io.Writer) *Log { return &Log{to: to} }

// Write adds text to the log.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte{'\n'})
		if !found {
			return len(p), nil
		}
		if len(l.lines) == maxLines {
			l.lines = slices.Delete(l.lines, 0, maxLines/2)
		}
		l.lines = append(l.lines, string(line))
		if l.to != nil {
			fmt.Fprintln(l.to, string(line))
		}
		l.part = rest
	}
}

// Lines returns the complete lines, oldest first.
func (l *Log) Lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// Tail returns the last n lines as one text.
func (l *Log) Tail(n int) string { return tail(l.Lines(), n) }

// Problems returns the last n lines that are above level INFO as one text.
func (l *Log) Problems(n int) string {
	ordinary := func(line string) bool { return strings.Contains(line, "level=INFO") }
	return tail(slices.DeleteFunc(l.Lines(), ordinary), n)
}

func tail(lines []string, n int) string {
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
