package term

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Progress shows how far a long run is, in one line that disappears at the end. The first two
// seconds show nothing.
type Progress struct {
	done atomic.Int64
	stop chan struct{}
	gone chan struct{}
}

// StartProgress shows how many of total are done, or the time if total is 0. A nil w shows nothing.
// The caller ends it.
func StartProgress(w io.Writer, doing string, total int) *Progress {
	p := &Progress{stop: make(chan struct{}), gone: make(chan struct{})}
	if w == nil {
		close(p.gone)
		return p
	}
	go p.run(w, doing, total)
	return p
}

// Add counts one more as done. Goroutines may call it at the same time.
func (p *Progress) Add() { p.done.Add(1) }

// Done returns how many are done.
func (p *Progress) Done() int { return int(p.done.Load()) }

// End removes the line.
func (p *Progress) End() {
	close(p.stop)
	<-p.gone
}

func (p *Progress) run(w io.Writer, doing string, total int) {
	defer close(p.gone)
	wait, start := 2*time.Second, time.Now()
	for shown := false; ; shown, wait = true, 200*time.Millisecond {
		select {
		case <-time.After(wait):
			if total > 0 {
				fmt.Fprintf(w, "\r%s: %d of %d", doing, p.Done(), total)
			} else {
				fmt.Fprintf(w, "\r%s: %d s", doing, int(time.Since(start).Seconds()))
			}
		case <-p.stop:
			if shown {
				fmt.Fprint(w, "\r\x1b[K")
			}
			return
		}
	}
}
