package events

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

// Kept is how many events a Log keeps.
const Kept = 256

const maxText = 1 << 10 // bytes of a text of an event; what is longer is cut

// Log keeps the newest events of a node. Make it with New. Its methods are safe for concurrent use
// and do not block.
type Log struct {
	nameOf  func(id string) string
	node    atomic.Pointer[string] // see SetNode
	added   notify.Signal
	counted meter.Counters
	current atomic.Bool   // see Begin
	term    atomic.Uint64 // of the newest leader

	mu   sync.Mutex
	last uint64            // number of the newest
	ring [Kept]event.Event // each at its number modulo Kept
}

// New returns an empty Log. nameOf returns the name of a node by its ID, or an empty string if it
// is not known. Any goroutine may call it.
func New(nameOf func(id string) string) *Log { return &Log{nameOf: nameOf} }

// SetNode says what the node is called that records the events.
func (l *Log) SetNode(name string) { l.node.Store(&name) }

// Node returns what SetNode has said, or an empty string before that.
func (l *Log) Node() string {
	if name := l.node.Load(); name != nil {
		return *name
	}
	return ""
}

// Begin says that the node has caught up with its cluster for the first time: what entries do from
// now on is new. News does nothing before that.
func (l *Log) Begin() { l.current.Store(true) }

// Add records an event. It sets Number and Node, and Time and Severity if they are not set.
func (l *Log) Add(e event.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if e.Severity == "" {
		e.Severity = event.Info
	}
	e.Node = l.Node()
	for _, text := range []*string{&e.Subject, &e.Text, &e.Cause} {
		if len(*text) > maxText {
			*text = (*text)[:maxText] + "…"
		}
	}
	l.counted.Inc(string(e.Kind))
	l.mu.Lock()
	l.last++
	e.Number = l.last
	l.ring[e.Number%Kept] = e
	l.mu.Unlock()
	l.added.Notify()
}

// After returns the events that are kept with a higher number, the oldest first.
func (l *Log) After(number uint64) []event.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := number + 1
	if l.last >= Kept {
		first = max(first, l.last-Kept+1)
	}
	var out []event.Event
	for n := first; n <= l.last; n++ {
		out = append(out, l.ring[n%Kept])
	}
	return out
}

// Added returns a channel that the next event closes.
func (l *Log) Added() <-chan struct{} { return l.added.Wait() }

// Wait returns the events with a higher number as soon as there is one, and none if ctx ends first.
func (l *Log) Wait(ctx context.Context, number uint64) []event.Event {
	var out []event.Event
	_ = notify.Until(ctx, func() bool {
		out = l.After(number)
		return len(out) > 0
	}, &l.added)
	return out
}

// All yields the events that are kept and then each new one, until the loop or one of the contexts
// ends.
func (l *Log) All(ctx, open context.Context) iter.Seq[event.Event] {
	return func(yield func(event.Event) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(open, cancel)()
		for number := uint64(0); ; {
			more := l.Wait(ctx, number)
			if len(more) == 0 {
				return
			}
			for _, e := range more {
				if !yield(e) {
					return
				}
				number = e.Number
			}
		}
	}
}

// Counts returns how many events there were of each kind.
func (l *Log) Counts() []meter.Labelled { return l.counted.List() }
