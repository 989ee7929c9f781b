package clustertest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	seedVariable = "CLUSTERTEST_SEED"
	traceLines   = 200 // the newest lines that are kept
)

// newSeed returns the seed of a cluster: that of the environment, or a random one.
func newSeed(t testing.TB) uint64 {
	t.Helper()
	text := os.Getenv(seedVariable)
	if text == "" {
		return rand.Uint64() >> 32 // short enough to type
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is not a seed: %v", seedVariable, err)
	}
	return seed
}

// trace is what has happened in a cluster. Any goroutine may call its methods.
type trace struct {
	start time.Time
	ids   *regexp.Regexp // the IDs that logs show behind names

	mu       sync.Mutex
	lines    []string // the newest ones
	dropped  int
	cluster  string             // of the newest state that was looked at
	index    uint64             // of that state
	sessions map[string]session // by node name
	holders  map[string]string  // names of nodes, by role
}

// session is what the trace knows of a node's session.
type session struct {
	number    uint64
	suspected bool
}

func newTrace() *trace {
	return &trace{start: time.Now(), ids: regexp.MustCompile(` \([0-9a-f]{8}\)`)}
}

// add adds a line about a node, or about all.
func (t *trace) add(who, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(who, format, args...)
}

// put is add. The caller holds mu.
func (t *trace) put(who, format string, args ...any) {
	if len(t.lines) == traceLines {
		t.lines = slices.Delete(t.lines, 0, 1)
		t.dropped++
	}
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	t.lines = append(t.lines, fmt.Sprintf("%10.3f  %-4s %s\n", time.Since(t.start).Seconds(), who, text))
}

func (t *trace) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	head := ""
	if t.dropped > 0 {
		head = fmt.Sprintf("(%d earlier lines are not kept)\n", t.dropped)
	}
	return head + strings.Join(t.lines, "")
}

// changed adds what is new in a state. Of all nodes the first to have it counts.
func (t *trace) changed(s *state.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.Cluster == t.cluster && s.Index <= t.index {
		return
	}
	t.cluster, t.index = s.Cluster, s.Index
	nameOf := func(id string) string {
		m, _ := s.Member(id)
		return cmp.Or(m.Name, id)
	}
	sessions := make(map[string]session)
	for id, ses := range state.Each(s.Sessions, nil) {
		sessions[nameOf(string(id))] = session{ses.Number, ses.Suspect != 0}
	}
	for _, who := range sorted(t.sessions, sessions) {
		was, is := t.sessions[who], sessions[who]
		switch {
		case is.number == 0:
			t.put(who, "its session has ended")
		case is.number != was.number:
			t.put(who, "has a session")
		case is.suspected && !was.suspected:
			t.put(who, "is suspected")
		case !is.suspected && was.suspected:
			t.put(who, "is suspected no more")
		}
	}
	holders := make(map[string]string)
	for key, r := range state.Each(s.Roles, []byte(keyspace.RolePrefix)) {
		holders[strings.TrimPrefix(string(key), keyspace.RolePrefix)] = nameOf(r.Queue[0].Node)
	}
	for _, role := range sorted(t.holders, holders) {
		switch was, is := t.holders[role], holders[role]; {
		case is == "":
			t.put("", "nobody holds %q", role)
		case is != was:
			t.put(is, "holds %q", role)
		}
	}
	t.sessions, t.holders = sessions, holders
}

// sorted returns the keys of both maps in order.
func sorted[V any](a, b map[string]V) []string {
	all := maps.Clone(b)
	maps.Copy(all, a)
	return slices.Sorted(maps.Keys(all))
}

// logger returns a logger that also adds to the trace what a node says.
func (t *trace) logger(to *slog.Logger, node string) *slog.Logger {
	if to == nil {
		to = slog.Default()
	}
	return slog.New(&reporter{to.Handler(), t, node, ""})
}

// reporter is the slog.Handler of a node.
type reporter struct {
	slog.Handler
	trace *trace
	who   string
	attrs string
}

// Enabled implements slog.Handler.
func (r *reporter) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || r.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (r *reporter) Handle(ctx context.Context, rec slog.Record) error {
	if rec.Level >= slog.LevelWarn || rec.Level >= slog.LevelInfo && isOwn(rec) {
		text := rec.Message + r.attrs
		rec.Attrs(func(a slog.Attr) bool {
			text += attr(a)
			return true
		})
		r.trace.add(r.who, "%s", r.trace.ids.ReplaceAllString(text, ""))
	}
	if !r.Handler.Enabled(ctx, rec.Level) {
		return nil
	}
	return r.Handler.Handle(ctx, rec)
}

// isOwn reports whether a line is flotilla's own, and does not tell what the trace says anyway.
// Others are of raft and certmagic.
func isOwn(rec slog.Record) bool {
	from := rec.Source()
	own := from == nil || !strings.Contains(from.Function, "/internal/slogbridge.")
	return own && rec.Message != "this node holds a role" && rec.Message != "this node takes part in the cluster"
}

// attr returns the text of an attribute. The node's name stands at the beginning of the line.
func attr(a slog.Attr) string {
	if a.Key == "node" {
		return ""
	}
	return " " + a.String()
}

// WithAttrs implements slog.Handler.
func (r *reporter) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *r
	more.Handler = r.Handler.WithAttrs(attrs)
	for _, a := range attrs {
		more.attrs += attr(a)
	}
	return &more
}

// WithGroup implements slog.Handler.
func (r *reporter) WithGroup(group string) slog.Handler {
	more := *r
	more.Handler = r.Handler.WithGroup(group)
	return &more
}
