package flotilla

import (
	"log/slog"
	"sync"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/status"
)

// A message is logged when a budget reaches status.SpaceScarce or status.SpaceFull. It is withdrawn
// when the budget is this many percent below.
const spaceCalm = 5

// spaceWatch logs when a budget becomes full and when it has room again, once each.
type spaceWatch struct {
	limits spaceLimits
	log    *slog.Logger

	mu    sync.Mutex
	level [keyspace.Budgets]int // percentage of the last warning; 0: none
}

// look returns a function that logs what has changed, or nil if nothing has. It does not block.
func (w *spaceWatch) look(s *state.State) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var say []func()
	for b, now := range spaceOf(s, w.limits) {
		before, percent := w.level[b], now.Percent()
		level := before
		switch {
		case percent >= status.SpaceFull:
			level = status.SpaceFull
		case percent >= status.SpaceScarce && (before < status.SpaceScarce || percent < status.SpaceFull-spaceCalm):
			level = status.SpaceScarce
		case percent < status.SpaceScarce-spaceCalm:
			level = 0
		}
		if level == before {
			continue
		}
		w.level[b] = level
		attrs := []any{"event", event.StateFull, "what", now.What, "percent", percent, "bytes", now.Bytes, "limit", now.Limit, "field", "Config." + now.Field}
		switch {
		case level == status.SpaceFull:
			say = append(say, func() {
				w.log.Error("the state has hardly any room left; delete something or raise the limit", attrs...)
			})
		case level > before:
			say = append(say, func() { w.log.Warn("the state is getting full; delete something or raise the limit", attrs...) })
		default:
			attrs[1] = event.StateRoom
			say = append(say, func() { w.log.Info("the state has more room again", attrs...) })
		}
	}
	if say == nil {
		return nil
	}
	return func() {
		for _, f := range say {
			f()
		}
	}
}

// spaceLimits are the fields of Config that set the limits of budgets.
type spaceLimits struct{ maxState, maxRecords int64 }

func (c *Config) limits() spaceLimits { return spaceLimits{c.MaxState, c.MaxRecords} }

// of returns the limit of a budget.
func (l spaceLimits) of(b keyspace.Budget) int64 {
	if b == keyspace.ProgramItems {
		return b.Limit(l.maxRecords)
	}
	return b.Limit(l.maxState)
}

// spaceOf lists the budgets.
func spaceOf(s *state.State, limits spaceLimits) []status.Space {
	out := make([]status.Space, keyspace.Budgets)
	for b := range keyspace.Budgets {
		out[b] = status.Space{What: b.String(), Bytes: s.Used[b], Limit: limits.of(b), Field: b.Field()}
	}
	return out
}
