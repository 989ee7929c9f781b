package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
)

// tailLines is how many of a node's last log lines an error shows.
const tailLines = 8

// tail keeps the last lines that are written to it, and passes all of them on.
type tail struct {
	to io.Writer // nil: nowhere

	mu    sync.Mutex // guards the rest
	lines []string
	part  []byte // of a line without its end yet
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part = append(t.part, p...)
	for {
		line, rest, found := bytes.Cut(t.part, []byte{'\n'})
		if !found {
			break
		}
		t.lines = append(t.lines, string(line))
		if t.to != nil {
			fmt.Fprintln(t.to, string(line))
		}
		t.part = rest
	}
	if n := len(t.lines) - tailLines; n > 0 {
		t.lines = append([]string(nil), t.lines[n:]...)
	}
	return len(p), nil
}

// last returns the last lines as the end of an error's text.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 {
		return "; it has logged nothing"
	}
	return "; its last log lines:\n  " + strings.Join(t.lines, "\n  ")
}

// prefixer writes lines to w, each with a prefix.
type prefixer struct {
	w      io.Writer
	mu     *sync.Mutex // shared by the prefixers of one w; guards it
	prefix string
}

func (p prefixer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Fprintf(p.w, "%-8s│ %s\n", p.prefix, strings.TrimRight(line, "\n")); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
