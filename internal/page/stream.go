package page

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	maxViewers = 32
	retryAfter = 10              // seconds, for a viewer that is one too many
	slowest    = 5 * time.Second // for the client to take an update
)

// viewers counts those who get updates.
type viewers struct {
	mu   sync.Mutex
	free int
}

// enter takes a place, or reports that there is none.
func (v *viewers) enter() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.free == 0 {
		return false
	}
	v.free--
	return true
}

func (v *viewers) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.free++
}

// updates sends the content of the page as server-sent events: at once, then when something has
// changed, and at the latest every ten seconds.
func (p *Page) updates(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	p.harden(h)
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		http.Error(w, "updates are only for the page of this node", http.StatusForbidden)
		return
	}
	if !p.viewers.enter() {
		h.Set("Retry-After", strconv.Itoa(retryAfter))
		http.Error(w, "too many pages get updates from this node; close some, or ask another node", http.StatusServiceUnavailable)
		return
	}
	defer p.viewers.leave()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // a proxy must not collect them
	out := &stream{w: w, control: http.NewResponseController(w)}
	out.control.SetReadDeadline(time.Time{}) // when that of the server passes, the request would end
	if !out.send([]byte("retry: 3000\n\n")) {
		return
	}
	for {
		now, err := p.shared.get(r.Context())
		if err != nil || !out.send(now.event) || !p.wait(r, now) {
			return
		}
	}
}

// wait returns when it is time for the next look, or false when there is to be none.
func (p *Page) wait(r *http.Request, last *seen) bool {
	pause := func(until time.Time, changed <-chan struct{}) bool {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-changed:
		case <-p.closed:
			return false
		case <-r.Context().Done():
			return false
		}
		return true
	}
	return pause(last.began.Add(soonest), nil) && pause(last.began.Add(latest), last.changed)
}

// stream is an answer that goes on.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// send reports whether the client has taken a piece. The deadlines of the server are for short
// answers, so each piece has its own.
func (s *stream) send(piece []byte) bool {
	s.control.SetWriteDeadline(time.Now().Add(slowest)) // not all ResponseWriters have one
	if _, err := s.w.Write(piece); err != nil {
		return false
	}
	return s.control.Flush() == nil
}
