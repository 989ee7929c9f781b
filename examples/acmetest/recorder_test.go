package acmetest

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// recorder looks at the records that flotilla.Storage logs, at level Debug, before each call. It counts them, and may call die
// instead of letting one go on.
type recorder struct {
	die func(n int, op, key string)

	mu    sync.Mutex
	seen  map[storageCall]int
	at    int    // die at this call; 0: never
	name  string // whose calls are counted
	calls int    // since arm
}

type storageCall struct{ op, key string }

func newRecorder(die func(n int, op, key string)) *recorder {
	return &recorder{die: die, seen: make(map[storageCall]int)}
}

// handler returns a handler that gives all other records to next.
func (r *recorder) handler(next slog.Handler) slog.Handler { return recordHandler{r: r, next: next} }

// arm makes call number n from now on the last one, and returns how many there were since the last arm. Calls for other names are not
// counted: a node looks now and then for what it could not get.
func (r *recorder) arm(n int, name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.at, r.name, r.calls = n, name, 0
	return calls
}

// tokens returns how often the token of a challenge was stored and loaded.
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

// Enabled is true of every level: storage calls are logged at the lowest.
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
