package slogbridge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"regexp"

	"github.com/hashicorp/go-hclog"
)

// NewHclog returns an hclog logger, for raft, that writes to l. With a nil l it writes nothing. The
// logger has no level of its own. absent reports whether the cluster knows that a peer is down, or
// an operator has planned it. Lines about an absent peer have level debug. Any goroutine may call
// absent.
func NewHclog(l *slog.Logger, absent func(id string) bool) hclog.Logger {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	return &hcLogger{log: l, ids: nodeID(), absent: absent}
}

// hcLogger is an hclog.Logger on a slog.Logger.
type hcLogger struct {
	log     *slog.Logger
	ids     *regexp.Regexp
	absent  func(id string) bool
	name    string
	implied []any
}

func (h *hcLogger) Log(level hclog.Level, msg string, args ...any) {
	to := h.level(level, msg, args)
	if level == hclog.Off || !h.log.Enabled(context.Background(), to) {
		return
	}
	attrs := make([]slog.Attr, 0, 2+(len(h.implied)+len(args))/2)
	if h.name != "" {
		attrs = append(attrs, slog.String("logger", h.name))
	}
	attrs = appendPairs(appendPairs(attrs, h.implied), args)
	h.log.LogAttrs(context.Background(), to, msg, attrs...)
}

// appendPairs appends the attributes for hclog's alternating keys and values.
func appendPairs(attrs []slog.Attr, args []any) []slog.Attr {
	for ; len(args) > 0; args = args[min(2, len(args)):] {
		if len(args) == 1 {
			return append(attrs, slog.Any(hclog.MissingKey, hcValue(args[0])))
		}
		attrs = append(attrs, slog.Any(fmt.Sprint(args[0]), hcValue(args[1])))
	}
	return attrs
}

func hcValue(v any) any {
	switch v := v.(type) {
	case hclog.Format:
		if len(v) == 0 {
			return ""
		}
		return fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...)
	case error, fmt.Stringer:
		return fmt.Sprint(v) // accepts a nil pointer
	}
	return v
}

func (h *hcLogger) Trace(msg string, args ...any) { h.Log(hclog.Trace, msg, args...) }
func (h *hcLogger) Debug(msg string, args ...any) { h.Log(hclog.Debug, msg, args...) }
func (h *hcLogger) Info(msg string, args ...any)  { h.Log(hclog.Info, msg, args...) }
func (h *hcLogger) Warn(msg string, args ...any)  { h.Log(hclog.Warn, msg, args...) }
func (h *hcLogger) Error(msg string, args ...any) { h.Log(hclog.Error, msg, args...) }

func (h *hcLogger) is(l slog.Level) bool { return h.log.Enabled(context.Background(), l) }
func (h *hcLogger) IsTrace() bool        { return h.is(slog.LevelDebug) }
func (h *hcLogger) IsDebug() bool        { return h.is(slog.LevelDebug) }
func (h *hcLogger) IsInfo() bool         { return h.is(slog.LevelDebug) }
func (h *hcLogger) IsWarn() bool         { return h.is(slog.LevelWarn) }
func (h *hcLogger) IsError() bool        { return h.is(slog.LevelError) }

func (h *hcLogger) ImpliedArgs() []any { return h.implied }
func (h *hcLogger) Name() string       { return h.name }

func (h *hcLogger) With(args ...any) hclog.Logger {
	return &hcLogger{log: h.log, ids: h.ids, absent: h.absent, name: h.name, implied: append(h.implied[:len(h.implied):len(h.implied)], args...)}
}

func (h *hcLogger) Named(name string) hclog.Logger {
	if h.name != "" {
		name = h.name + "." + name
	}
	return h.ResetNamed(name)
}

func (h *hcLogger) ResetNamed(name string) hclog.Logger {
	return &hcLogger{log: h.log, ids: h.ids, absent: h.absent, name: name, implied: h.implied}
}

// SetLevel does nothing: the slog.Logger decides.
func (h *hcLogger) SetLevel(hclog.Level) {}

func (h *hcLogger) GetLevel() hclog.Level {
	for _, l := range []hclog.Level{hclog.Debug, hclog.Info, hclog.Warn, hclog.Error} {
		if h.is(raftLevel(l, "")) {
			return l
		}
	}
	return hclog.Off
}

func (h *hcLogger) StandardLogger(opts *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(h.StandardWriter(opts), "", 0)
}

// StandardWriter returns a writer that makes one record of each Write.
func (h *hcLogger) StandardWriter(opts *hclog.StandardLoggerOptions) io.Writer {
	level := hclog.Info
	if opts != nil && opts.ForceLevel != hclog.NoLevel {
		level = opts.ForceLevel
	}
	return writerFunc(func(p []byte) { h.Log(level, string(bytes.TrimRight(p, "\n"))) })
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
