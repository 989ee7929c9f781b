package slogbridge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"regexp"
	"strings"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// NewZap returns a zap logger, for certmagic, that writes to l, or to nobody if l is nil.
func NewZap(l *slog.Logger) *zap.Logger {
	if l == nil {
		return zap.NewNop()
	}
	return zap.New(&zapCore{log: l})
}

// zapCore is a zapcore.Core on a slog.Logger.
type zapCore struct {
	log    *slog.Logger
	fields []zapcore.Field // of With; converted when a record is written, for certmagic calls With on every handshake
}

func (c *zapCore) Enabled(lvl zapcore.Level) bool {
	return c.log.Enabled(context.Background(), zapLevel(lvl))
}

func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{log: c.log, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := zapLevel(e.Level)
	if e.Message == "tls-alpn challenge" { // anybody can cause this one by a ClientHello; the CA's own answer tells of a real failure
		level = slog.LevelDebug
	}
	attrs := make([]slog.Attr, 0, 1+len(c.fields)+len(fields))
	if e.LoggerName != "" {
		attrs = append(attrs, slog.String("logger", e.LoggerName))
	}
	for _, fs := range [][]zapcore.Field{c.fields, fields} {
		for _, f := range fs {
			if f.Type != zapcore.SkipType {
				attrs = append(attrs, slog.Any(f.Key, zapValue(f)))
			}
		}
	}
	c.log.LogAttrs(context.Background(), level, e.Message, attrs...)
	return nil
}

func (c *zapCore) Sync() error { return nil }

func zapLevel(lvl zapcore.Level) slog.Level {
	switch {
	case lvl < zapcore.InfoLevel:
		return slog.LevelDebug
	case lvl == zapcore.InfoLevel:
		return slog.LevelInfo
	case lvl == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// zapValue returns the value of f. What is neither a scalar, a list of them, an error nor a Stringer is named by its type only: a
// structure may hold a key.
func zapValue(f zapcore.Field) any {
	switch f.Type {
	case zapcore.ReflectType:
		switch v := f.Interface.(type) {
		case nil:
			return nil
		case error, fmt.Stringer:
			return fmt.Sprint(v) // which survives a nil pointer
		case string, bool, int, uint, int64, uint64, float64, []string:
			return v
		}
		return fmt.Sprintf("%T", f.Interface)
	case zapcore.BinaryType, zapcore.ByteStringType:
		return fmt.Sprintf("%d bytes", len(f.Interface.([]byte)))
	case zapcore.ObjectMarshalerType, zapcore.InlineMarshalerType:
		if f.Key == "problem" {
			return zapProblem(f)
		}
		return fmt.Sprintf("%T", f.Interface)
	}
	enc := zapcore.NewMapObjectEncoder()
	f.AddTo(enc)
	return enc.Fields[f.Key]
}

// zapProblem returns what a certificate authority complains of (RFC 8555, section 6.7): operators want to know why.
func zapProblem(f zapcore.Field) any {
	enc := zapcore.NewMapObjectEncoder()
	f.AddTo(enc)
	problem, _ := enc.Fields[f.Key].(map[string]any)
	var parts []string
	for _, name := range []string{"status_code", "type", "title", "detail"} {
		if v, ok := problem[name]; ok && fmt.Sprint(v) != "" {
			parts = append(parts, fmt.Sprint(v))
		}
	}
	return strings.Join(parts, ": ")
}

// NewHclog returns an hclog logger, for raft, that writes to l, or to nobody if l is nil. It has no level of its own. That raft cannot reach a
// peer that is absent is no news: the cluster has taken note of its end, or an operator has planned it.
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

// level returns the level of a line.
func (h *hcLogger) level(level hclog.Level, msg string, args []any) slog.Level {
	to := raftLevel(level, msg)
	if to < slog.LevelWarn || !aboutPeer(msg) {
		return to
	}
	for _, arg := range args {
		if id := h.ids.FindString(fmt.Sprint(arg)); id != "" && h.absent(id) {
			return slog.LevelDebug
		}
	}
	return to
}

// raft warns of what is the ordinary course of an election, and of every try to reach a peer that is down.
func raftLevel(level hclog.Level, msg string) slog.Level {
	switch level {
	case hclog.Trace, hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		lower := strings.ToLower(msg)
		for _, ordinary := range []string{"election", "stepping down", "rejecting vote request", "rejecting pre-vote request", "duplicate requestvote",
			"sending older logs", "previous log term mis-match", "clearing log suffix", "skipping application of old log",
			"failed to contact", // the failure detector says so sooner, and says what follows from it
			"failed to get previous log", "pre-vote is disabled"} {
			if strings.Contains(lower, ordinary) {
				return slog.LevelInfo
			}
		}
		return slog.LevelWarn
	case hclog.Error:
		if strings.HasPrefix(msg, "peer has newer term") {
			return slog.LevelInfo
		}
		for _, peer := range []string{"failed to heartbeat to", "failed to appendEntries to", "failed to pipeline appendEntries",
			"failed to make requestVote RPC", "failed to start pipeline replication to"} {
			if strings.HasPrefix(msg, peer) {
				return slog.LevelWarn
			}
		}
		return slog.LevelError
	}
	return slog.LevelInfo
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

// appendPairs appends the attributes that hclog's alternating keys and values stand for.
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
		return fmt.Sprint(v) // which survives a nil pointer
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
func (h *hcLogger) IsInfo() bool         { return h.is(slog.LevelInfo) }
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
	return WriterFunc(func(p []byte) { h.Log(level, string(bytes.TrimRight(p, "\n"))) })
}

type WriterFunc func([]byte)

func (f WriterFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
