package acmetest

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// recorder counts the storage calls of a node. flotilla.Storage logs each call at level Debug
// before it makes it. The recorder may call die instead of letting the call go on.
type recorder struct {
	die func(n int, op, key string)

	mu    sync.Mutex
	seen  map[storageCall]int
	at    int    // die at this call; 0: never
	name  string // calls for it count
	calls int    // since the last arm
}

type storageCall struct{ op, key string }

func newRecorder(die func(n int, op, key string)) *recorder {
	return &recorder{die: die, seen: make(map[storageCall]int)}
}

// handler returns a handler that passes all other records on to next.
func (r *recorder) handler(next slog.Handler) slog.Handler { return recordHandler{r: r, next: next} }

// arm makes call number n from now the last one; 0: none. It returns the number of calls since the
// last arm. Calls for other names do not count: a node looks again from time to time for what it
// could not get.
func (r *recorder) arm(n int, name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.at, r.name, r.calls = n, name, 0
	return calls
}

// tokens returns how often this process stored and loaded the token of a challenge.
func (r *recorder) tokens(name string) (stores, loads int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, n := range r.seen {
		switch {
		case tokenOf(c.key, name) && c.op == "store":
			stores += n
		case tokenOf(c.key, name) && c.op == "load":
			loads += n
		}
	}
	return stores, loads
}

func (r *recorder) record(op, key string) {
	r.mu.Lock()
	r.seen[storageCall{op, key}]++
	if !strings.Contains(key, zone) || strings.Contains(key, r.name) {
		r.calls++
	}
	n, die := r.calls, r.at > 0 && r.calls >= r.at
	r.mu.Unlock()
	if die {
		r.die(n, op, key)
	}
}

type recordHandler struct {
	r    *recorder
	next slog.Handler
}

// Enabled returns true for every level: storage calls are logged at the lowest.
func (h recordHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h recordHandler) Handle(ctx context.Context, rec slog.Record) error {
	if rec.Level == slog.LevelDebug && rec.Message == "storage" {
		var op, key string
		rec.Attrs(func(a slog.Attr) bool {
			switch a.Key {
			case "op":
				op = a.Value.String()
			case "key":
				key = a.Value.String()
			}
			return true
		})
		h.r.record(op, key)
		return nil
	}
	if !h.next.Enabled(ctx, rec.Level) {
		return nil
	}
	return h.next.Handle(ctx, rec)
}

func (h recordHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return recordHandler{r: h.r, next: h.next.WithAttrs(attrs)}
}

func (h recordHandler) WithGroup(name string) slog.Handler {
	return recordHandler{r: h.r, next: h.next.WithGroup(name)}
}
