package flotilla

import "log/slog"

var discardLog = slog.New(slog.DiscardHandler)

// leasedAlways is the word of a node that has its lease.
func leasedAlways() bool { return true }

// nobodyAbsent is the word of a cluster whose members are all there.
func nobodyAbsent(string) bool { return false }
