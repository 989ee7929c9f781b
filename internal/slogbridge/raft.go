package slogbridge

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// level returns the level that a line of raft has in the log.
func (h *hcLogger) level(level hclog.Level, msg string, args []any) slog.Level {
	to := raftLevel(level, msg)
	if msg == "failed to get log" && slices.ContainsFunc(args, isNotFound) {
		return slog.LevelDebug // a leader without that entry sends its snapshot
	}
	if to < slog.LevelWarn || !aboutPeer(msg) {
		return to
	}
	for _, arg := range args {
		if id := h.ids.FindString(fmt.Sprint(arg)); id != "" && h.absent(id) {
			return slog.LevelDebug
		}
	}
	return to
}

func isNotFound(arg any) bool {
	err, ok := arg.(error)
	return ok && errors.Is(err, raft.ErrLogNotFound)
}

// raftLevel returns the level of a line of raft about a peer that is not absent. Raft itself warns
// of ordinary steps of an election, and of each attempt to reach a peer that is down. What matters
// of these, and of its info lines, is said by a line of flotilla: who leads, which session has
// ended, which peers cannot be reached, that there is no leader.
func raftLevel(level hclog.Level, msg string) slog.Level {
	switch level {
	case hclog.Warn:
		lower := strings.ToLower(msg)
		for _, ordinary := range []string{"election", "stepping down", "rejecting vote request", "rejecting pre-vote request",
			"duplicate requestvote", "sending older logs", "previous log term mis-match", "clearing log suffix",
			"skipping application of old log",
			"failed to contact", // the failure detector reports it sooner, with the consequences
			"failed to get previous log", "pre-vote is disabled"} {
			if strings.Contains(lower, ordinary) {
				return slog.LevelDebug
			}
		}
		return slog.LevelWarn
	case hclog.Error:
		for _, own := range []string{
			"peer has newer term", // "this node leads no more"
			// "other nodes cannot be reached", with each peer's error, and "the cluster has no leader"
			"failed to heartbeat to", "failed to make requestVote RPC", "failed to start pipeline replication to"} {
			if strings.HasPrefix(msg, own) {
				return slog.LevelDebug
			}
		}
		// The peer may be reached, and not take what is sent.
		if strings.HasPrefix(msg, "failed to pipeline appendEntries") || strings.HasPrefix(msg, "failed to appendEntries to") {
			return slog.LevelWarn
		}
		return slog.LevelError
	}
	return slog.LevelDebug
}

// aboutPeer reports whether a line of raft is about a peer that it cannot reach.
func aboutPeer(msg string) bool {
	return slices.ContainsFunc([]string{"failed to send snapshot to", "failed to install snapshot", "failed to send timeout now",
		"failed to pipeline appendEntries", "failed to appendEntries to"},
		func(part string) bool { return strings.HasPrefix(msg, part) })
}
