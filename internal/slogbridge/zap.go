package slogbridge

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// NewZap returns a zap logger, for certmagic, that writes to l. With a nil l it writes nothing.
func NewZap(l *slog.Logger) *zap.Logger {
	if l == nil {
		return zap.NewNop()
	}
	return zap.New(&zapCore{log: l})
}

// zapCore is a zapcore.Core on a slog.Logger.
type zapCore struct {
	log *slog.Logger
	// With adds them. They are converted only when a record is written, since certmagic calls With in
	// every handshake.
	fields []zapcore.Field
}

// Enabled reports whether a line of that level may be written. Its wording decides: see Check.
func (c *zapCore) Enabled(lvl zapcore.Level) bool {
	return c.log.Enabled(context.Background(), zapLevel(lvl))
}

func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{log: c.log, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.log.Enabled(context.Background(), lineLevel(e, nil)) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
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
	c.log.LogAttrs(context.Background(), lineLevel(e, fields), e.Message, attrs...)
	return nil
}

func (c *zapCore) Sync() error { return nil }

// lineLevel returns the level that a line of certmagic has in the log. Its info lines are the steps
// of orders and of upkeep, and have level debug: a line of flotilla says how they end.
func lineLevel(e zapcore.Entry, fields []zapcore.Field) slog.Level {
	level := zapLevel(e.Level)
	switch e.Message {
	case "tls-alpn challenge":
		// Any ClientHello can cause this line. The CA's own answer reports a real failure.
		return slog.LevelDebug
	case "could not get certificate from issuer", "validating authorization":
		// "no certificate; will try again", or "a certificate was not renewed; will try again"
		return slog.LevelDebug
	case "will retry":
		// "a certificate was not renewed; will try again" tells of the first failure only.
		first := func(f zapcore.Field) bool { return f.Key == "attempt" && f.Integer == 1 }
		if slices.ContainsFunc(fields, first) {
			return slog.LevelDebug
		}
		return slog.LevelWarn
	case "job failed":
		// So ends each try to renew. It may have failed before there was an order, which no other line
		// says.
		return slog.LevelWarn
	case "challenge failed":
		// The order goes on with another challenge. If none succeeds, flotilla's line says so.
		return slog.LevelInfo
	case "new ACME account registered", "certificate expired beyond grace period; cleaning up",
		"removed certificate's compromised private key from use":
		return level // no line of flotilla says it
	}
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}

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

// zapValue returns the value of f if it is a scalar, a list of scalars, an error or a Stringer. For
// any other value it returns the type only, since a structure may hold a key.
func zapValue(f zapcore.Field) any {
	switch f.Type {
	case zapcore.ReflectType:
		switch v := f.Interface.(type) {
		case nil:
			return nil
		case error, fmt.Stringer:
			return fmt.Sprint(v) // accepts a nil pointer
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

// zapProblem returns the problem that a certificate authority reports (RFC 8555, section 6.7).
// Operators need that reason.
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
