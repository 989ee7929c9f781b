package datagram

import "sync"

// MaxQueued is the number of datagrams that wait for the connection to one peer.
const MaxQueued = 32

// queue holds the frames that wait to be sent to one peer.
type queue struct {
	wake chan struct{} // has an element when something was put in

	mu     sync.Mutex
	frames []byte
	count  int  // of frames
	taken  bool // a sender runs, or is about to
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put adds a datagram, and drops the oldest if there is no room. It reports whether no sender runs
// yet: the caller must then start a sender, which ends when rest returns true.
func (q *queue) put(data []byte) (start bool) {
	q.mu.Lock()
	if q.count == MaxQueued {
		if _, size, err := decodeFrame(q.frames); err == nil { // it is one of ours
			q.frames = q.frames[:copy(q.frames, q.frames[size:])]
			q.count--
		}
	}
	q.frames = frame{data: data}.encode(q.frames)
	q.count++
	start = !q.taken
	q.taken = true
	q.mu.Unlock()
	if start {
		return true
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return false
}

// take returns the frames that wait and empties the queue. The queue then uses the room of spare.
func (q *queue) take(spare []byte) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	frames := q.frames
	q.frames, q.count = spare[:0], 0
	return frames
}

// rest reports whether nothing waits. Its caller then sends no more.
func (q *queue) rest() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken = q.count > 0
	return !q.taken
}
