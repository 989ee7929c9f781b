// Package slogbridge joins three logs in one slog.Logger: certmagic's, which goes to zap, raft's,
// which goes to hclog, and flotilla's own.
//
// # Guarantees
//
//   - Of a value that may hold keys, the log has only the type.
//   - One line tells one event. What a line of flotilla says has level debug in the words of raft
//     and certmagic. So have their ordinary steps, such as those of an election or of an order.
//   - Levels mean what operators expect. Failures to reach a peer that is known to be absent are no
//     warnings.
//   - A node ID appears with the node's name (NewNamed).
//
// # Flow
//
// NewZap and NewHclog make loggers that convert each record when it is written. The slog.Logger
// decides which levels are enabled. For a nil slog.Logger they make a logger that writes nothing.
//
// # Assumptions
//
// The package changes the level of a line of raft or certmagic by its wording. If a release changes
// the wording, the line has the level that the library gives it.
package slogbridge
