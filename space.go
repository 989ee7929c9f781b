package flotilla

import (
	"cmp"
	"fmt"
	"log/slog"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	spaceScarce = 80 // percent of a budget at which a warning is logged
	spaceFull   = 95 // percent at which an error is logged, and the cluster is not healthy
	spaceCalm   = 5  // percent below these at which a message is withdrawn
)

// SpaceStatus says how full a budget of the replicated state is. Budgets are separate: that of
// programs may be full while certificates still have room.
type SpaceStatus struct {
	// records of programs, certificates, roles and locks of programs, locks of certificates, or
	// entries of programs' buckets
	What  string
	Bytes int64 // bytes used, including names
	Limit int64 // bytes; writes beyond it are refused with ErrTooLarge

	Field string // the field of Config that sets the limit: MaxState or MaxRecords
}

// Percent returns how much of the limit is used, rounded down. It is 0 if there is no limit.
func (s SpaceStatus) Percent() int {
	if s.Limit <= 0 {
		return 0
	}
	return int(100 * s.Bytes / s.Limit)
}

// Warning returns a short text if the budget is nearly full, and an empty string otherwise.
func (s SpaceStatus) Warning() string {
	if s.Percent() < spaceScarce {
		return ""
	}
	return fmt.Sprintf("%s take %d %% of their limit of %d bytes, and writes beyond it are refused; delete some or raise Config.%s", s.What, s.Percent(), s.Limit, cmp.Or(s.Field, keyspace.Budget(0).Field()))
}

// Full reports whether there is hardly any room left.
func (s SpaceStatus) Full() bool { return s.Percent() >= spaceFull }

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
		case percent >= spaceFull:
			level = spaceFull
		case percent >= spaceScarce && (before < spaceScarce || percent < spaceFull-spaceCalm):
			level = spaceScarce
		case percent < spaceScarce-spaceCalm:
			level = 0
		}
		if level == before {
			continue
		}
		w.level[b] = level
		attrs := []any{"what", now.What, "percent", percent, "bytes", now.Bytes, "limit", now.Limit, "field", "Config." + now.Field}
		switch {
		case level == spaceFull:
			say = append(say, func() {
				w.log.Error("the state has hardly any room left; delete something or raise the limit", attrs...)
			})
		case level > before:
			say = append(say, func() { w.log.Warn("the state is getting full; delete something or raise the limit", attrs...) })
		default:
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
func spaceOf(s *state.State, limits spaceLimits) []SpaceStatus {
	out := make([]SpaceStatus, keyspace.Budgets)
	for b := range keyspace.Budgets {
		out[b] = SpaceStatus{What: b.String(), Bytes: s.Used[b], Limit: limits.of(b), Field: b.Field()}
	}
	return out
}
