// Package testlog makes loggers for tests.
package testlog

import (
	"io"
	"log/slog"
)

// To returns a logger that writes to w. Its lines have no time. It leaves out records below the
// given level.
func To(w io.Writer, level slog.Level) *slog.Logger { return At(w, level) }

// At is To for a level that may change.
func At(w io.Writer, level slog.Leveler) *slog.Logger {
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

// WriterFunc is a function that serves as an io.Writer. A logger calls it once for each line. The
// function must not keep the line.
type WriterFunc func(line []byte)

// Write calls f with the line, and never fails.
func (f WriterFunc) Write(line []byte) (int, error) {
	f(line)
	return len(line), nil
}
