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
	numberAcceptSecret
	numberUseSecret
	numberDropSecrets
	numberRotateKeys
	numberForgetKeys
	numberSetVote
	numberRaiseVersion
	numberEvictMember
	numberShutOut
	numberEndEviction
	numberWriteItems
	numberExpireItems

	lastNumber = numberExpireItems
)

// Command is one change of the state, and what all of them have in common.
type Command struct {
	// Requires is the cluster version that a node must support to apply the command. 0: any version.
	// Encode raises it to what the change requires, so a proposer leaves it 0.
	Requires uint64

	// Node is the ID of the node that proposes the command.
	Node string

	// Session is the number of that node's session. 0: the command needs none, and may be applied
	// twice.
	Session uint64

	// Seq is the number of the command within its session, from 1.
	Seq uint64

	// Acked says that the node has the answers to all commands up to this number.
	Acked uint64

	// Time is the proposer's clock in Unix nanoseconds. It is shown, never compared.
	Time int64

	// Fences are conditions. The command does nothing unless all of them are true.
	Fences []Fence

	// Change is what the command does. It is never nil.
	Change Change
}

// Fence is a condition: the claim that this session made with the command Seq holds the role.
type Fence struct {
	// Role is the role's name in the tree, with its prefix.
	Role string

	// Seq is the number of the command that made the claim.
	Seq uint64
}

// Change is what a command does. There is one type for each command.
type Change interface {
	number() byte
	encode(e *codec.Encoder)

	// apply changes s, which nobody else has seen yet. It must not write to anything that s shares
	// with the state before.
	apply(s *State, e entry) Code
}

// laterChange is a Change that the first cluster version does not have, or not with all its fields.
type laterChange interface {
	// requires returns the cluster version that a node must support to read the change as it is.
	requires() uint64
}

// requires returns the cluster version that a node must support to read the change. 0: any version.
func requires(c Change) uint64 {
	if later, ok := c.(laterChange); ok {
		return later.requires()
	}
	return 0
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
	e.Uint(max(c.Requires, requires(c.Change)))
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
