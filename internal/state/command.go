package state

import "github.com/flotilla-ha/flotilla/internal/codec"

// The numbers of commands in the log. No number is ever used for another command.
const (
	numberStartTerm byte = iota + 1
	numberOpenSession
	numberLeaveSession
	numberEndSession
	numberEndByDeathNotice
	numberSuspect
	numberClearSuspicion
	numberSetMember
	numberStoreRecord
	numberPutRecords
	numberDeleteRecords
	numberClaimRole
	numberReleaseRole
	numberYieldRole
	numberMoveRole
	numberExpireHoldDown
	numberRotateTickets
	numberDropTickets

	lastNumber = numberDropTickets
)

// Command is one change of the state, and what all of them have in common.
type Command struct {
	Requires uint64 // the cluster version that a node must support to apply it; 0: any
	Node     string // the node that proposes it
	Session  uint64 // of that node; 0: the command needs none, and may be applied twice
	Seq      uint64 // number within the session, from 1
	Acked    uint64 // the node has the answers to all commands up to this number
	Time     int64  // the proposer's clock in Unix nanoseconds: shown, never compared

	Fences []Fence // the command does nothing unless all of them are true
	Change Change  // what it does
}

// Fence is a condition: the claim that this session made with the command Seq holds the role.
type Fence struct {
	Role string // the name in the tree, with its prefix
	Seq  uint64 // of the command that made the claim
}

// Change is what a command does. There is one type for each command.
type Change interface {
	number() byte
	encode(e *codec.Encoder)

	// apply changes s, which nobody else has seen yet. It must not write to anything that s shares
	// with the state before.
	apply(s *State, e entry) Code
}

// entry is a command at its place in the log.
type entry struct {
	*Command
	index uint64
	fx    *Effects
}

// Encode returns the command as it is sealed into a log entry. [DecodeCommand] is the inverse.
func (c *Command) Encode() []byte {
	e := codec.Encoder{B: make([]byte, 0, 256)}
	e.Byte(c.Change.number())
	e.Uint(c.Requires)
	e.String(c.Node)
	e.Uint(c.Session)
	e.Uint(c.Seq)
	e.Uint(c.Acked)
	e.Int(c.Time)
	e.Uint(uint64(len(c.Fences)))
	for _, f := range c.Fences {
		e.String(f.Role)
		e.Uint(f.Seq)
	}
	c.Change.encode(&e)
	return e.B
}
