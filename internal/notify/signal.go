package notify

import "sync"

// Signal wakes everyone who waits for something to change. The zero Signal is ready. Its methods
// are safe for concurrent use.
type Signal struct {
	mu          sync.Mutex
	ch          chan struct{}                // the next Notify closes and drops it; nil: nobody waits
	subscribers map[chan<- struct{}]struct{} // each has a buffer of one
}

// Wait returns a channel that the next Notify closes.
func (s *Signal) Wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// Notify wakes everyone who waits. It does not block.
func (s *Signal) Notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
	for woken := range s.subscribers {
		select {
		case woken <- struct{}{}:
		default: // it has yet to see the last value, and looks again then
		}
	}
}

// subscribe makes every Notify put a value into woken, unless woken holds one already. The buffer
// of woken has room for one.
func (s *Signal) subscribe(woken chan<- struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subscribers == nil {
		s.subscribers = make(map[chan<- struct{}]struct{})
	}
	s.subscribers[woken] = struct{}{}
}

// unsubscribe undoes subscribe.
func (s *Signal) unsubscribe(woken chan<- struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subscribers, woken)
}
