package rafttransport

import "errors"

var (
	// ErrStalled is returned by AppendEntries and InstallSnapshot while this node's own disk hangs.
	ErrStalled = errors.New("not sent: the own disk hangs")

	// ErrReleased is returned by AppendEntries and InstallSnapshot that were held for a peer that
	// is down, when they are no longer held.
	ErrReleased = errors.New("held for a peer that is down, and now given up")
)
