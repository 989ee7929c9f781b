package flotilla

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	spaceScarce = 80 // percent of a budget from which on it is said that it gets full
	spaceFull   = 95 // percent from which on it is said with emphasis, and the cluster is not well
	spaceCalm   = 5  // percent below that at which it is said no more
)

// SpaceStatus tells how full a budget of the replicated state is. Budgets are apart: that of
// programs may be full while certificates go on.
type SpaceStatus struct {
	// records of programs, certificates, roles and locks of programs, or locks of certificates
	What  string
	Bytes int64 // used, names included
	Limit int64 // what has no room below it is refused with ErrTooLarge; see Config.MaxState
}

// Percent returns how much of the limit is used.
func (s SpaceStatus) Percent() int {
	if s.Limit <= 0 {
		return 0
	}
	return int(100 * s.Bytes / s.Limit)
}

// Warning says in a few words that the budget is nearly full; empty: it is not.
func (s SpaceStatus) Warning() string {
	if s.Percent() < spaceScarce {
		return ""
	}
	return fmt.Sprintf("%s take %d %% of their limit of %d bytes, and over it they are refused; delete some or raise Config.MaxState", s.What, s.Percent(), s.Limit)
}

// Full reports whether hardly anything more has room.
func (s SpaceStatus) Full() bool { return s.Percent() >= spaceFull }

// spaceWatch logs when a budget gets full, once each way.
type spaceWatch struct {
	maxState int64
	log      *slog.Logger

	mu    sync.Mutex
	level [keyspace.Budgets]int // the percentage that was warned of; 0: none
}

// look returns what is to be logged now, nil if nothing is. It does not block.
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
