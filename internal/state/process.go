package state

import (
	"slices"
	"strconv"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// MaxProcesses is the largest number of incarnations without a session that a directory remembers.
const MaxProcesses = 64

// Process is the last process of a member that had a session. The state keeps it for as long as the
// node is a member: a directory that does not know this process is an older copy of the node's.
type Process struct {
	// Incarnation names the process.
	Incarnation string

	// Addr is the address that peers dialled then.
	Addr string

	// Opened is the index of the entry that opened the process's newest session.
	Opened uint64

	ended uint64 // index of the entry that ended that session; 0: it has not ended

	// Time is when that session was opened, by the leader's clock in Unix nanoseconds.
	Time int64

	stored uint64 // a committed entry that is known to have been on its disk
}

func (p Process) encode(e *codec.Encoder) {
	e.String(p.Incarnation)
	e.String(p.Addr)
	e.Uint(p.Opened)
	e.Uint(p.ended)
	e.Int(p.Time)
	e.Uint(p.stored)
}

func decodeProcess(d *codec.Decoder) Process {
	return Process{Incarnation: d.String(), Addr: d.String(), Opened: d.Uint(), ended: d.Uint(), Time: d.Int(), stored: d.Uint()}
}

// ComesAfter reports whether a directory that has had the given processes comes after the process
// last. It does if it knows that process, or if its first process is newer.
func ComesAfter(processes []string, last string) bool {
	return slices.Contains(processes, last) || len(processes) > 0 && processes[0] != "" && StartOf(last) < StartOf(processes[0])
}

// StartOf returns the number of the start of the node that an incarnation names. It returns 0 if
// the incarnation names none.
func StartOf(incarnation string) uint64 {
	n, err := strconv.ParseUint(incarnation[:min(16, len(incarnation))], 16, 64)
	if err != nil {
		return 0
	}
	return n
}
