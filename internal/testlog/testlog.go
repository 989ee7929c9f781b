// Package testlog makes loggers for tests.
package testlog

import (
	"io"
	"log/slog"
)

// To returns a logger that writes lines without time to w, from the given level on.
func To(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime}))
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		return slog.Attr{}
	}
	return a
}

// None returns a logger that writes nothing.
func None() *slog.Logger { return slog.New(slog.DiscardHandler) }

// WriterFunc is an io.Writer that passes each line to a function.
type WriterFunc func(line []byte)

// Write implements io.Writer.
func (f WriterFunc) Write(line []byte) (int, error) {
	f(line)
	return len(line), nil
}
