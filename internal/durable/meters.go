package durable

import "github.com/flotilla-ha/flotilla/internal/meter"

// Meters count what a directory does. The zero value is ready.
type Meters struct {
	// LogSync is how long the disk takes to make a batch of raft's log durable: one fdatasync each.
	LogSync meter.Histogram
}
