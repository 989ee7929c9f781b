package state

import (
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// Process is the last process of a member that has had a session. The state keeps it for as long as
// the node is a member: a directory that does not know this process is an older copy of that node's.
type Process struct {
	Incarnation string
	Addr        string // what peers dialled then
	Opened      uint64 // index of the entry that opened its newest session
	ended       uint64 // index of the entry that ended that; 0: it has not ended
	Time        int64  // of opened, as the leader's clock had it
	stored      uint64 // a committed entry that is known to have been on its disk
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

// MaxProcesses is how many processes a directory remembers that never had a session.
const MaxProcesses = 64

func EncodeProcesses(boots []string) []byte { return []byte(strings.Join(boots, "\n")) }

func DecodeProcesses(b []byte) []string { return strings.Split(string(b), "\n") }

// ComesAfter reports whether a directory that has had these processes comes after one that a session was
// given to: it knows that one, or is newer than all of its time.
func ComesAfter(processes []string, boot string) bool {
	return slices.Contains(processes, boot) || len(processes) > 0 && processes[0] != "" && StartOf(boot) < StartOf(processes[0])
}

// Process returns the last process of a node that had a session.
func (s *State) Process(node string) (Process, bool) { return s.processes.Get([]byte(node)) }

// Stored returns an entry that a node is known to have had on its disk, 0 if none is.
func (s *State) Stored(node string) uint64 {
	p, _ := s.Process(node)
	return p.stored
}

// mayOpen reports whether the process that asks for a session comes after the last one that had one:
// its directory knows that. Else it is of an older copy of the directory, or dead for long.
func (s *State) mayOpen(c *Command) bool {
	last, ok := s.Process(c.Node)
	return !ok || last.Incarnation == c.Key || ComesAfter(DecodeProcesses(c.Value), last.Incarnation)
}

// remember takes what a leader knew of a node's disk when it gave up its session.
func (s *State) remember(c *Command) {
	p, ok := s.Process(c.Target)
	if !ok || p.Opened != c.Number || p.stored >= c.Stored {
		return
	}
	p.stored = c.Stored
	s.processes, _, _ = s.processes.Insert([]byte(c.Target), p)
}

// StartOf returns which process of its node a name is of.
func StartOf(boot string) uint64 {
	n, err := strconv.ParseUint(boot[:min(16, len(boot))], 16, 64)
	if err != nil {
		return 0
	}
	return n
}
