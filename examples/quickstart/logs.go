package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// prefixer writes lines to w, each with a prefix.
type prefixer struct {
	w      io.Writer
	mu     *sync.Mutex // guards w; the prefixers of one w share it
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
