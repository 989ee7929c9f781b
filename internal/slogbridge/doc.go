// Package slogbridge makes one log of three: certmagic logs to zap, raft to hclog, and everything
// ends in a slog.Logger.
//
// # Guarantees
//
//   - Values that may hold keys are logged by their type only.
//   - Levels mean what operators expect: ordinary steps of an election are no warnings, nor are
//     peers that are known to be absent.
//   - Node IDs appear with the node's name (NewNamed).
//
// # Flow
//
// NewZap and NewHclog convert each record when it is written, and leave the decision whether a
// level is enabled to the slog.Logger. A nil slog.Logger makes a logger that writes nothing.
//
// # Assumptions
//
// The wording of raft's and certmagic's lines, by which their levels are changed. Where a release
// changes its wording, a line has the level that the library gives it.
package slogbridge
