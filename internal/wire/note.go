package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"
)

// MaxNote is the largest note in bytes.
const MaxNote = 256

// Connections for notes.
const (
	maxNotes       = 32                     // that wait for the connection to one peer
	noteAsk        = time.Second            // from one question whether the peer is there to the next
	noteSteady     = time.Second            // a connection that ends earlier counts as a dial that failed
	minNotePause   = 50 * time.Millisecond  // from a dial that failed to the next
	maxNotePause   = 100 * time.Millisecond // which it is doubled up to: half of the shortest lease, or a node that has just come would be promised nothing
	refusedPause   = 500 * time.Millisecond // the same for a peer that can be reached and takes no notes
	noteIdle       = 2 * time.Minute        // after which the receiver closes a connection that is not used
	noteBufferSize = 4 << 10                // of the receiver
)

// A frame is two bytes, and a note if they are its length. The dialler also asks whether the peer is still there, which the peer
// answers with one byte. It is what tells a path that has died from one on which nothing was lost: TCP would be silent for
// minutes, and after the path is mended for as long again as it was cut.
const (
	frameHead = 2
	frameAsk  = 0xffff
	frameHere = 1 // the answer
)

var errFrame = errors.New("a frame of notes is not valid")

// frame is a note or a question.
type frame struct {
	note []byte // part of the buffer that it was cut from
	ask  bool
}

// cutFrame reads the first frame of b, and how long it is: 0 if b ends within it.
func cutFrame(b []byte) (f frame, size int, err error) {
	if len(b) < frameHead {
		return frame{}, 0, nil
	}
	n := int(binary.BigEndian.Uint16(b))
	switch size = frameHead + n; {
	case n == frameAsk:
		return frame{ask: true}, frameHead, nil
	case n > MaxNote:
		return frame{}, 0, errFrame
	case size > len(b):
		return frame{}, 0, nil
	}
	return frame{note: b[frameHead:size:size]}, size, nil
}

func appendNote(b, note []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(note))), note...)
}

// notes is the part of a Port that sends and takes notes.
type notes struct {
	port *Port

	mu  sync.Mutex
	out map[string]*outbox     // by peer
	in  map[string]*noteReader // by peer, the newest
}

func newNotes(p *Port) *notes {
	return &notes{port: p, out: make(map[string]*outbox), in: make(map[string]*noteReader)}
}

// Note sends a small message to the node id, for that node's Config.Noted. It never blocks and promises nothing: a note is dropped
// when there is no room in the queue, the oldest first, when the connection breaks, and when the peer cannot be reached. Notes that
// arrive do so in the order in which they were sent, each at most once. The first note makes the connection. The caller may use the
// slice again after the call. A note of more than MaxNote bytes, or to what is no node ID, is dropped, which is logged at level Debug.
func (p *Port) Note(id string, note []byte) {
	if len(note) > MaxNote || !validID(id) {
		p.cfg.Logger.Debug("dropped a note that cannot be sent", "peer", id, "bytes", len(note), "allowed", MaxNote)
		return
	}
	p.notes.outbox(id).put(note)
}

func (s *notes) outbox(id string) *outbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.out[id]
	if o == nil {
		o = &outbox{port: s.port, id: id, wake: make(chan struct{}, 1), sent: make(chan struct{})}
		s.out[id] = o
	}
	return o
}

// outbox is what waits to be sent to one peer.
type outbox struct {
	port *Port
	id   string
	wake chan struct{} // has an element when something was put in

	mu      sync.Mutex
	queue   []byte        // frames
	count   int           // of them
	running bool          // run is, or is about to
	sent    chan struct{} // closed and replaced when frames were sent

	// Of run alone.
	pause time.Duration // the last one; 0 after success
	eager bool          // that one could be cut short
}

// put adds a note, in the place of the oldest if there is no room.
func (o *outbox) put(note []byte) {
	o.mu.Lock()
	if o.count == maxNotes {
		if _, size, err := cutFrame(o.queue); err == nil { // it is one of ours
			o.queue = o.queue[:copy(o.queue, o.queue[size:])]
			o.count--
		}
	}
	o.queue = appendNote(o.queue, note)
	o.count++
	start := !o.running
	o.running = true
	o.mu.Unlock()
	if start {
		o.port.spawn(o.run)
		return
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take returns the frames that wait, and has their place taken by spare.
func (o *outbox) take(spare []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	frames := o.queue
	o.queue, o.count = spare[:0], 0
	return frames
}

// tellSent tells those who wait for company.
func (o *outbox) tellSent() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.sent)
	o.sent = make(chan struct{})
}

// company waits until the next note is sent, but no longer than limit. What is sent then finds both machines awake.
func (o *outbox) company(limit time.Duration) {
	o.mu.Lock()
	sent := o.sent
	o.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-sent:
	case <-timer.C:
	case <-o.port.done:
	}
}

// rest ends run if nothing waits.
func (o *outbox) rest() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running = o.count > 0
	return !o.running
}

// run dials and sends as long as there is something to send or a connection. What waited for a dial that failed, or for a connection
// that has ended, is dropped.
func (o *outbox) run() {
	p := o.port
	for {
		start := time.Now()
		nc, err := p.whileOpen(context.Background(), func(ctx context.Context) (*conn, error) { return p.dialNode(ctx, o.id, alpnNote) })
		if err == nil {
			newNoteWriter(o, nc.(*conn)).run()
		} else {
			p.cfg.Logger.Debug("no connection for notes", "peer", o.id, "error", err)
		}
		o.take(nil)
		if err == nil && time.Since(start) >= noteSteady {
			o.pause, o.eager = 0, false
		} else {
			limit := refusedPause
			if err != nil && !unwilling(err) {
				limit = maxNotePause
			}
			o.wait(start, limit)
		}
		if p.isClosed() || o.rest() {
			return
		}
	}
}

// wait pauses after a dial that began at start and failed. If the peer is heard of meanwhile, it is probably there again and the pause
// ends; but not twice running, for there are peers that reach us and cannot be reached.
func (o *outbox) wait(start time.Time, limit time.Duration) {
	o.pause = min(max(2*o.pause, minNotePause), limit)
	o.eager = !o.eager
	var up <-chan struct{}
	if o.eager {
		up = o.port.peers.up(o.id)
	}
	timer := time.NewTimer(max(o.pause-time.Since(start), minNotePause))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-up:
	case <-o.port.done:
	}
}

// noteWriter sends what is in an outbox over one connection.
type noteWriter struct {
	box   *outbox
	c     *conn
	ended chan struct{} // closed when c is

	mu    sync.Mutex
	asked bool      // the peer has not answered yet; while it has not, c has a read deadline
	last  time.Time // when it was asked
}

func newNoteWriter(o *outbox, c *conn) *noteWriter {
	w := &noteWriter{box: o, c: c, ended: make(chan struct{})}
	c.atClose(func() { close(w.ended) })
	return w
}

// run sends until the connection ends, and closes it.
func (w *noteWriter) run() {
	p := w.box.port
	defer w.c.Close()
	if !p.spawn(w.listen) {
		return
	}
	var frames []byte
	for {
		select {
		case <-w.ended:
			return
		default:
		}
		if frames = w.box.take(frames); len(frames) == 0 {
			select {
			case <-w.box.wake:
			case <-w.ended:
			}
			continue
		}
		now := time.Now()
		if w.ask(now) {
			frames = binary.BigEndian.AppendUint16(frames, frameAsk)
		}
		w.c.SetWriteDeadline(now.Add(p.cfg.Timeout))
		if _, err := w.c.Write(frames); err != nil {
			return
		}
		w.box.tellSent()
	}
}

// ask reports whether it is time to ask, and begins to wait for the answer if so.
func (w *noteWriter) ask(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked || now.Sub(w.last) < noteAsk {
		return false
	}
	w.asked, w.last = true, now
	w.c.SetReadDeadline(now.Add(w.box.port.cfg.Timeout / 4))
	return true
}

// answered reports whether there was a question, which is answered now.
func (w *noteWriter) answered() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.asked {
		return false
	}
	w.asked = false
	w.c.SetReadDeadline(time.Time{})
	return true
}

// listen reads the peer's answers. It notices at once when the peer's process ends, and closes the connection.
func (w *noteWriter) listen() {
	defer w.c.Close()
	var b [1]byte
	for {
		if _, err := w.c.Read(b[:]); err != nil || b[0] != frameHere || !w.answered() {
			return
		}
		w.box.port.peers.heard(w.box.id)
	}
}

// noteReader takes the notes of one inbound connection.
type noteReader struct {
	notes  *notes
	c      *conn
	before <-chan struct{} // closed when the peer's previous connection is done with; nil if there was none
	done   chan struct{}
}

// enter makes c the peer's connection for notes, and closes the one before. It must be called before c is accepted: a peer that
// has closed a connection and dialled again is then known to have done so.
func (s *notes) enter(c *conn) *noteReader {
	r := &noteReader{notes: s, c: c, done: make(chan struct{})}
	s.mu.Lock()
	old := s.in[c.peer]
	s.in[c.peer] = r
	s.mu.Unlock()
	if old != nil {
		r.before = old.done
		old.c.Close()
	}
	return r
}

// leave undoes enter once no note of the connection is under way any more.
func (r *noteReader) leave() {
	close(r.done)
	r.notes.mu.Lock()
	defer r.notes.mu.Unlock()
	if r.notes.in[r.c.peer] == r {
		delete(r.notes.in, r.c.peer)
	}
}

// serve takes notes until the connection ends.
func (r *noteReader) serve() {
	defer r.leave()
	defer r.c.Close()
	if r.before != nil {
		<-r.before // it was closed; its notes come first
	}
	p := r.notes.port
	if err := r.read(); errors.Is(err, errFrame) && p.said.pass("note "+r.c.peer) {
		p.cfg.Logger.Warn("closed a connection for notes", "peer", r.c.peer, "error", err)
	}
}

func (r *noteReader) read() error {
	p := r.notes.port
	buf, here := make([]byte, noteBufferSize), []byte{frameHere}
	for have := 0; ; {
		now := time.Now()
		r.c.SetReadDeadline(now.Add(noteIdle))
		n, err := r.c.Read(buf[have:])
		if err != nil {
			return err
		}
		p.peers.heard(r.c.peer)
		asked, left := false, buf[:have+n]
		for {
			f, size, err := cutFrame(left)
			if err != nil {
				return err
			}
			if size == 0 {
				break
			}
			if f.ask {
				asked = true
			} else {
				p.cfg.Noted(r.c.peer, f.note)
			}
			left = left[size:]
		}
		have = copy(buf, left)
		if asked {
			r.c.SetWriteDeadline(time.Now().Add(p.cfg.Timeout))
			if _, err := r.c.Write(here); err != nil {
				return err
			}
		}
	}
}
