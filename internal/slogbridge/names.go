package slogbridge

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

// nodeID returns an expression that matches the ID of a node.
func nodeID() *regexp.Regexp { return regexp.MustCompile(`\b[0-9a-f]{32}\b`) }

// nameHandler is a slog.Handler that adds names to node IDs, as in "n1 (98801e51)". Raft, errors
// and lists use IDs, but people know names.
type nameHandler struct {
	slog.Handler
	ids  *regexp.Regexp
	name func(id string) string // empty: it is not known
	self func() string          // the name of this node; empty: it is not known
}

// NewNamed returns a logger that writes to l. It replaces the ID of a node by the node's name and
// the beginning of the ID. name returns the name of a node, or an empty string if it is not known.
// self returns the name of this node, which each record gets, or an empty string while it is not
// known. Any goroutine may call both functions.
func NewNamed(l *slog.Logger, name func(id string) string, self func() string) *slog.Logger {
	return slog.New(&nameHandler{l.Handler(), nodeID(), name, self})
}

// Handle implements slog.Handler.
func (h *nameHandler) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, h.text(r.Message), r.PC)
	if self := h.self(); self != "" {
		out.AddAttrs(slog.String("node", self))
	}
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(h.attr(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

// WithAttrs implements slog.Handler.
func (h *nameHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	named := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		named[i] = h.attr(a)
	}
	return &nameHandler{h.Handler.WithAttrs(named), h.ids, h.name, h.self}
}

// WithGroup implements slog.Handler.
func (h *nameHandler) WithGroup(name string) slog.Handler {
	return &nameHandler{h.Handler.WithGroup(name), h.ids, h.name, h.self}
}

func (h *nameHandler) attr(a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
		return slog.String(a.Key, h.text(a.Value.String()))
	case slog.KindAny:
		text := fmt.Sprint(a.Value.Any())
		if named := h.text(text); named != text {
			return slog.String(a.Key, named)
		}
	}
	return a
}

func (h *nameHandler) text(s string) string {
	if len(s) < 32 {
		return s
	}
	return h.ids.ReplaceAllStringFunc(s, func(id string) string {
		if name := h.name(id); name != "" {
			return name + " (" + plaintext.ShortID(id) + ")"
		}
		return id
	})
}
