package status

import (
	"cmp"
	"fmt"
)

// The percentages of a limit from which on there is little room left, and hardly any.
const (
	SpaceScarce = 80
	SpaceFull   = 95
)

// Space says how full a budget of the replicated state is. Budgets are separate: that of programs
// may be full while certificates still have room.
type Space struct {
	// records of programs, certificates, roles and locks of programs, locks of certificates, or
	// entries of programs' buckets
	What  string
	Bytes int64 // bytes used, including names
	Limit int64 // bytes; writes beyond it are refused with flotilla.ErrTooLarge

	Field string // the field of flotilla.Config that sets the limit: MaxState or MaxRecords
}

// Percent returns how much of the limit is used, rounded down. It is 0 if there is no limit.
func (s Space) Percent() int {
	if s.Limit <= 0 {
		return 0
	}
	return int(100 * s.Bytes / s.Limit)
}

// Warning returns a short text if the budget is nearly full, and an empty string otherwise.
func (s Space) Warning() string {
	if s.Percent() < SpaceScarce {
		return ""
	}
	return fmt.Sprintf("%s take %d %% of their limit of %d bytes, and writes beyond it are refused; delete some or raise Config.%s", s.What, s.Percent(), s.Limit, cmp.Or(s.Field, "MaxState"))
}

// Full reports whether there is hardly any room left.
func (s Space) Full() bool { return s.Percent() >= SpaceFull }
