package flotilla

import (
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
	// records of programs, certificates, roles and locks of programs, or locks of certificates
	What  string
	Bytes int64 // bytes used, including names
	Limit int64 // bytes; writes beyond it are refused with ErrTooLarge, see Config.MaxState
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
	return fmt.Sprintf("%s take %d %% of their limit of %d bytes, and over it they are refused; delete some or raise Config.MaxState", s.What, s.Percent(), s.Limit)
}

// Full reports whether there is hardly any room left.
func (s SpaceStatus) Full() bool { return s.Percent() >= spaceFull }

// spaceWatch logs when a budget becomes full and when it has room again, once each.
type spaceWatch struct {
	maxState int64
	log      *slog.Logger

	mu    sync.Mutex
	level [keyspace.Budgets]int // percentage of the last warning; 0: none
}

// look returns a function that logs what has changed, or nil if nothing has. It does not block.
func (w *spaceWatch) look(s *state.State) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var say []func()
	for b, now := range spaceOf(s, w.maxState) {
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
		attrs := []any{"what", now.What, "percent", percent, "bytes", now.Bytes, "limit", now.Limit}
		switch {
		case level == spaceFull:
			say = append(say, func() {
				w.log.Error("the state has hardly any room left; delete something or raise Config.MaxState", attrs...)
			})
		case level > before:
			say = append(say, func() { w.log.Warn("the state gets full; delete something or raise Config.MaxState", attrs...) })
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

// spaceOf lists the budgets.
func spaceOf(s *state.State, maxState int64) []SpaceStatus {
	out := make([]SpaceStatus, keyspace.Budgets)
	for b := range keyspace.Budgets {
		out[b] = SpaceStatus{What: b.String(), Bytes: s.Used[b], Limit: b.Limit(maxState)}
	}
	return out
}
