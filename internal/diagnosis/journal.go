package diagnosis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

const (
	maxJournal = 256 << 10 // bytes of the lines that a Journal keeps
	maxText    = 1 << 10   // bytes of a message or a value; what is longer is cut
)

// Journal keeps the newest records of a node's log, at most 256 KiB. Each is a line of JSON, so
// that who shows them to others can look into the texts. The zero Journal is ready. Its methods are
// safe for concurrent use.
type Journal struct {
	mu    sync.Mutex
	lines [][]byte // the oldest first, each with its end
	size  int      // bytes of them together
}

// Logger returns a logger that writes to l, and has the Journal keep what l takes. What l's level
// leaves out, such as debug records, costs as little as before and is not kept.
func (j *Journal) Logger(l *slog.Logger) *slog.Logger {
	// The level is that of l, which may change. So the handler of the Journal takes all.
	lines := slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.Level(-1 << 10), ReplaceAttr: asText})
	return slog.New(&keeper{l.Handler(), lines})
}

// asText makes texts of values that JSON would write in another way than people know, and cuts long
// texts.
func asText(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindAny:
		if a.Key == slog.LevelKey {
			return a
		}
		a.Value = slog.StringValue(fmt.Sprintf("%+v", a.Value.Any()))
	case slog.KindDuration:
		a.Value = slog.StringValue(a.Value.String())
	}
	if a.Value.Kind() == slog.KindString {
		if text := a.Value.String(); len(text) > maxText {
			a.Value = slog.StringValue(text[:maxText] + "…")
		}
	}
	return a
}

// Write keeps a line, which a slog.JSONHandler writes as a whole. It never fails.
func (j *Journal) Write(line []byte) (int, error) {
	kept := bytes.Clone(line)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines, j.size = append(j.lines, kept), j.size+len(kept)
	for j.size > maxJournal {
		j.size -= len(j.lines[0])
		j.lines[0] = nil // append may keep the array
		j.lines = j.lines[1:]
	}
	return len(line), nil
}

// Text returns the lines that are kept, the oldest first.
func (j *Journal) Text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(bytes.Join(j.lines, nil))
}

// keeper is a slog.Handler that passes to a second one what the first one takes.
type keeper struct{ first, second slog.Handler }

// Enabled implements slog.Handler.
func (k *keeper) Enabled(ctx context.Context, level slog.Level) bool {
	return k.first.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (k *keeper) Handle(ctx context.Context, r slog.Record) error {
	return errors.Join(k.first.Handle(ctx, r.Clone()), k.second.Handle(ctx, r))
}

// WithAttrs implements slog.Handler.
func (k *keeper) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &keeper{k.first.WithAttrs(attrs), k.second.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (k *keeper) WithGroup(name string) slog.Handler {
	return &keeper{k.first.WithGroup(name), k.second.WithGroup(name)}
}
