package flotilla

import (
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// process is the last process of a member that has had a session. The state keeps it for as long as
// the node is a member: a directory that does not know this process is an older copy of that node's.
type process struct {
	boot   string
	addr   string // what peers dialled then
	opened uint64 // index of the entry that opened its newest session
	ended  uint64 // index of the entry that ended that; 0: it has not ended
	time   int64  // of opened, as the leader's clock had it
	stored uint64 // a committed entry that is known to have been on its disk
}

func (p process) encode(e *codec.Encoder) {
	e.String(p.boot)
	e.String(p.addr)
	e.Uint(p.opened)
	e.Uint(p.ended)
	e.Int(p.time)
	e.Uint(p.stored)
}

func decodeProcess(d *codec.Decoder) process {
	return process{boot: d.String(), addr: d.String(), opened: d.Uint(), ended: d.Uint(), time: d.Int(), stored: d.Uint()}
}

// maxProcesses is how many processes a directory remembers that never had a session.
const maxProcesses = 64

func encodeProcesses(boots []string) []byte { return []byte(strings.Join(boots, "\n")) }

func decodeProcesses(b []byte) []string { return strings.Split(string(b), "\n") }

// comesAfter reports whether a directory that has had these processes comes after one that a session was
// given to: it knows that one, or is newer than all of its time.
func comesAfter(processes []string, boot string) bool {
	return slices.Contains(processes, boot) || len(processes) > 0 && processes[0] != "" && startOf(boot) < startOf(processes[0])
}

// process returns the last process of a node that had a session.
func (s *state) process(node string) (process, bool) { return s.processes.Get([]byte(node)) }

// stored returns an entry that a node is known to have had on its disk, 0 if none is.
func (s *state) stored(node string) uint64 {
	p, _ := s.process(node)
	return p.stored
}

// mayOpen reports whether the process that asks for a session comes after the last one that had one:
// its directory knows that. Else it is of an older copy of the directory, or dead for long.
func (s *state) mayOpen(c *command) bool {
	last, ok := s.process(c.node)
	return !ok || last.boot == c.key || comesAfter(decodeProcesses(c.value), last.boot)
}

// remember takes what a leader knew of a node's disk when it gave up its session.
func (s *state) remember(c *command) {
	p, ok := s.process(c.target)
	if !ok || p.opened != c.number || p.stored >= c.stored {
		return
	}
	p.stored = c.stored
	s.processes, _, _ = s.processes.Insert([]byte(c.target), p)
}

// startOf returns which process of its node a name is of.
func startOf(boot string) uint64 {
	n, err := strconv.ParseUint(boot[:min(16, len(boot))], 16, 64)
	if err != nil {
		return 0
	}
	return n
}
