package events

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/flotilla-ha/flotilla/event"
)

// Logger returns a logger that writes to l. A record at INFO or above with the attribute "event",
// whose value is an event.Kind, is an event too. The attribute behind it is the subject, if its
// name says so: see isSubject. One that is called why, err, error or reason is the cause.
func (l *Log) Logger(to *slog.Logger) *slog.Logger {
	return slog.New(&recorder{to.Handler(), l})
}

// recorder is a slog.Handler that records events.
type recorder struct {
	slog.Handler
	log *Log
}

// Enabled implements slog.Handler.
func (r *recorder) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || r.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (r *recorder) Handle(ctx context.Context, rec slog.Record) error {
	if e := of(rec); e.Kind != "" {
		r.log.Add(e)
	}
	if !r.Handler.Enabled(ctx, rec.Level) {
		return nil
	}
	return r.Handler.Handle(ctx, rec)
}

// WithAttrs implements slog.Handler.
func (r *recorder) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &recorder{r.Handler.WithAttrs(attrs), r.log}
}

// WithGroup implements slog.Handler.
func (r *recorder) WithGroup(name string) slog.Handler {
	return &recorder{r.Handler.WithGroup(name), r.log}
}

// of returns the event that a record stands for. Its Kind is empty if it stands for none.
func of(rec slog.Record) event.Event {
	e := event.Event{Time: rec.Time, Text: rec.Message, Severity: severity(rec.Level)}
	next := false // the attribute is the subject
	rec.Attrs(func(a slog.Attr) bool {
		kind, ok := a.Value.Any().(event.Kind)
		switch {
		case ok && a.Key == "event":
			e.Kind, next = kind, true
			return true
		case a.Key == "why" || a.Key == "err" || a.Key == "error" || a.Key == "reason":
			e.Cause = fmt.Sprint(a.Value.Any())
		case next && isSubject(a.Key):
			e.Subject = fmt.Sprint(a.Value.Any())
		}
		next = false
		return true
	})
	return e
}

// isSubject reports whether an attribute names what an event is about.
func isSubject(key string) bool {
	return slices.Contains([]string{"name", "former", "peer", "role", "domain", "issuer", "addr", "what"}, key)
}

func severity(l slog.Level) event.Severity {
	switch {
	case l >= slog.LevelError:
		return event.Error
	case l >= slog.LevelWarn:
		return event.Warn
	}
	return event.Info
}
