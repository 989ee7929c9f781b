package term

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

const (
	progressAfter = 2 * time.Second        // short runs show nothing
	redrawEvery   = 200 * time.Millisecond // the line that a person watches
	lineEvery     = 5 * time.Second        // lines for a log
)

// Progress shows how far a long run is, and for how long it has run. A person who watches sees one
// line that changes, and that disappears at the end. Elsewhere there is a line every five seconds.
// The first two seconds show nothing.
type Progress struct {
	w       io.Writer
	watched bool
	begun   time.Time
	done    atomic.Int64
	stop    chan struct{}
	gone    chan struct{}

	mu    sync.Mutex
	doing string
	goal  Goal
}

// Goal is what a run has to do. The zero Goal means that this is not known.
type Goal struct {
	Total int64 // things or bytes; 0: not known
	Bytes bool  // what is done is counted in bytes
	About bool  // Total is an estimate

	// Done returns how much is done, for a run that does not say. Nil: what was added.
	Done func() int64
}

// StartProgress shows how far a run is. watched says that w is a terminal. A nil w shows nothing.
// The caller ends it.
func StartProgress(w io.Writer, watched bool, doing string, goal Goal) *Progress {
	p := &Progress{
		w: w, watched: watched, begun: time.Now(), stop: make(chan struct{}), gone: make(chan struct{}), doing: doing, goal: goal,
	}
	if w == nil {
		close(p.gone)
		return p
	}
	go p.run()
	return p
}

// Next says that the run does something else now, of which nothing is done yet.
func (p *Progress) Next(doing string, goal Goal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doing, p.goal = doing, goal
	p.done.Store(0)
}

// Add counts n more as done. Goroutines may call it at the same time.
func (p *Progress) Add(n int64) { p.done.Add(n) }

// One counts one more as done.
func (p *Progress) One() { p.done.Add(1) }

// Done returns how many are done.
func (p *Progress) Done() int { return int(p.done.Load()) }

// Reader returns r, and counts the bytes that are read. atEnd is called once, at the end of r; nil
// does nothing.
func (p *Progress) Reader(r io.Reader, atEnd func()) io.Reader {
	return &countedReader{r: r, p: p, atEnd: atEnd}
}

// Writer returns w, and counts the bytes that are written.
func (p *Progress) Writer(w io.Writer) io.Writer { return countedWriter{w, p} }

// End removes the line.
func (p *Progress) End() {
	close(p.stop)
	<-p.gone
}

func (p *Progress) run() {
	defer close(p.gone)
	wait, every := progressAfter, redrawEvery
	if !p.watched {
		wait, every = lineEvery, lineEvery
	}
	for shown := false; ; shown, wait = true, every {
		select {
		case <-time.After(wait):
			if p.watched {
				fmt.Fprintf(p.w, "\r%s\x1b[K", p.text())
			} else {
				fmt.Fprintln(p.w, p.text())
			}
		case <-p.stop:
			if shown && p.watched {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		}
	}
}

// text says how far the run is now.
func (p *Progress) text() string {
	p.mu.Lock()
	doing, goal, done := p.doing, p.goal, p.done.Load()
	p.mu.Unlock()
	if goal.Done != nil {
		done = goal.Done()
	}
	took := fmt.Sprintf("%d s", int(time.Since(p.begun).Seconds()))
	switch percent := goal.percent(done); {
	case goal.Total > 0 && goal.About:
		return fmt.Sprintf("%s: about %d %%, %s so far, %s", doing, percent, goal.amount(done), took)
	case goal.Total > 0:
		return fmt.Sprintf("%s: %d %%, %s of %s, %s", doing, percent, goal.amount(done), goal.amount(goal.Total), took)
	case goal.Bytes:
		return fmt.Sprintf("%s: %s so far, %s", doing, goal.amount(done), took)
	}
	return doing + ": " + took
}

// percent returns how much of the goal is done. An estimate is not reached before the end.
func (g Goal) percent(done int64) int64 {
	if g.Total <= 0 {
		return 0
	}
	most := int64(100)
	if g.About {
		most = 99
	}
	return min(max(100*done/g.Total, 0), most)
}

// amount returns n things or bytes in words.
func (g Goal) amount(n int64) string {
	if g.Bytes {
		return plaintext.Size(n)
	}
	return fmt.Sprint(n)
}

type countedReader struct {
	r     io.Reader
	p     *Progress
	atEnd func()
}

// Read implements io.Reader.
func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.p.Add(int64(n))
	if err == io.EOF && c.atEnd != nil {
		c.atEnd()
		c.atEnd = nil
	}
	return n, err
}

type countedWriter struct {
	w io.Writer
	p *Progress
}

// Write implements io.Writer.
func (c countedWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.p.Add(int64(n))
	return n, err
}
