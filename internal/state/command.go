package state

import (
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// A log entry is a version, a kind and the rest: either the wrapped keyring, which each node opens with the cluster's
// secret, or one command, sealed with a data key of the keyring by the node that proposes it.
const (
	EntryVersion = 2
	EntryKeyring = 'K'
	EntryCommand = 'C'
)

// op says what a command does. Numbers are for ever: they are in logs. A node that meets one that it does not know stops.
type op byte

const (
	OpStart   op = 1  // a leader's term begins; changes nothing but the index
	OpOpen    op = 2  // a node's session begins: key holds the process's boot number, value those that its directory knows, target its address, number the session that it replaces, if that is still there; flag: which has left nothing to be seen
	OpEnd     op = 3  // a session ends: target, number; cond: the suspicion that came true, voters: by these; 0: the node itself says so, or its will: key is ByDeathNotice then; flag: and something of it may be seen yet; priority: for how long it was silent
	OpMember  op = 4  // what a member says of itself, its name and address: target, key, value; flag: it has no directory; group: its former ID
	OpStore   op = 5  // key, value; number: what the state may have at the most; target, cond: only if that record is of that index
	OpDelete  op = 6  // key and all below it
	OpClaim   op = 7  // a claim to a role: key; flag: wait for it; priority, group; number: as OpStore; cond: if it is public 1 and the linger; voters: 1 if it is bequeathed
	OpRelease op = 8  // a claim is given up: key; number: the seq of the OpClaim
	OpSuspect op = 9  // a session is promised no more lease: target, number
	OpClear   op = 10 // the suspicion was wrong: target, number, cond: the suspicion
	OpYield   op = 11 // the holder of key is asked to hand over, if the claim of seq number is better
	OpPut     op = 12 // several records at once: value holds them; number: as OpStore
	OpTickets op = 13 // value: another key for session tickets; cond: the keys that it is to follow; flag: they are all dropped

	OpMove           op = 14 // the holder of key is asked to hand over to a claim of the node target; empty: to another node's
	OpExpireHoldDown op = 15 // a role's holder is dead, and has been for long enough: key; number: the entry that ended its session; priority: as OpEnd

	lastOp = OpExpireHoldDown
)

// ByDeathNotice is the key of an OpEnd that the bearer of a will asks for.
const ByDeathNotice = "will"

// Fence is a condition: that the claim of seq, in the command's session, holds the role.
type Fence struct {
	Role string
	Seq  uint64
}

// Command is one change of the state. Which of the fields below fences an op uses is said above.
type Command struct {
	Op      op
	Node    string // who proposes
	Session uint64 // its session, 0: none is needed
	Seq     uint64 // number within the session: a repeated one is answered from memory
	Acked   uint64 // all answers up to this seq have reached the node
	Time    int64  // the proposer's clock in Unix nanoseconds, shown as the time of modification, never compared

	Fences []Fence // the command does nothing unless all of them are true

	Key      string
	Value    []byte
	Target   string
	Number   uint64
	Cond     uint64
	Voters   uint64 // index of the configuration whose voters were counted
	Flag     bool
	Group    string
	Priority int64
	Stored   uint64 // OpSuspect, OpEnd: a committed entry that the node is known to have on its disk
}

func (c *Command) Encode() []byte {
	e := codec.Encoder{B: make([]byte, 0, 128+len(c.Key)+len(c.Value))}
	e.Byte(byte(c.Op))
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
	e.String(c.Key)
	e.Bytes(c.Value)
	e.String(c.Target)
	e.Uint(c.Number)
	e.Uint(c.Cond)
	e.Uint(c.Voters)
	e.Bool(c.Flag)
	e.String(c.Group)
	e.Int(c.Priority)
	e.Uint(c.Stored)
	return e.B
}

func DecodeCommand(b []byte) (Command, error) {
	d := codec.Decoder{B: b}
	c := Command{Op: op(d.Byte()), Node: d.String(), Session: d.Uint(), Seq: d.Uint(), Acked: d.Uint(), Time: d.Int()}
	for range d.Count() {
		c.Fences = append(c.Fences, Fence{d.String(), d.Uint()})
	}
	c.Key, c.Value, c.Target = d.String(), d.Bytes(), d.String()
	c.Number, c.Cond, c.Voters = d.Uint(), d.Uint(), d.Uint()
	c.Flag, c.Group, c.Priority, c.Stored = d.Bool(), d.String(), d.Int(), d.Uint()
	if c.Op < OpStart || c.Op > lastOp { // whose other fields need not be these
		return Command{}, fmt.Errorf("command %d is not known to this version of flotilla; upgrade this node", c.Op)
	}
	if err := d.End(); err != nil {
		return Command{}, err
	}
	if c.Op == OpPut {
		if _, err := decodeRecords(c.Value); err != nil {
			return Command{}, err
		}
	}
	if c.Op == OpTickets && len(c.Value) != TicketKeySize {
		return Command{}, codec.ErrMalformed
	}
	return c, nil
}

// Record is one record of an OpPut.
type Record struct {
	Key   string
	Value []byte
}

// EncodeRecords makes the value of an OpPut.
func EncodeRecords(records []Record) []byte {
	var e codec.Encoder
	e.Uint(uint64(len(records)))
	for _, r := range records {
		e.String(r.Key)
		e.Bytes(r.Value)
	}
	return e.B
}

func decodeRecords(b []byte) ([]Record, error) {
	d := codec.Decoder{B: b}
	records := make([]Record, d.Count())
	for i := range records {
		records[i] = Record{d.String(), d.Bytes()}
	}
	return records, d.End()
}

// SealCommand makes the log entry of c.
func SealCommand(k *seal.Keyring, c *Command) []byte {
	return append([]byte{EntryVersion, EntryCommand}, k.Seal(c.Encode())...)
}

// OpenCommand is the inverse of SealCommand.
func OpenCommand(k *seal.Keyring, entry []byte) (Command, error) {
	if len(entry) < 2 || entry[0] != EntryVersion || entry[1] != EntryCommand {
		return Command{}, codec.ErrMalformed
	}
	plain, err := k.Open(entry[2:])
	if err != nil {
		return Command{}, fmt.Errorf("%w: %w", errs.Sealed, err)
	}
	return DecodeCommand(plain)
}

// KeyringEntry makes the log entry that gives a new cluster its identity and its keys.
func KeyringEntry(cluster string, wrapped []byte) []byte {
	e := codec.Encoder{B: []byte{EntryVersion, EntryKeyring}}
	e.String(cluster)
	e.Bytes(wrapped)
	return e.B
}

// Code is the outcome of a command, as the state machine gives it.
type Code byte

const (
	CodeOK           Code = 0
	CodeEnded        Code = 1 // the session has ended: the command did nothing now
	CodeQueued       Code = 2 // another claim holds the role; this one waits
	CodeHeld         Code = 3 // another claim holds the role; this one does not wait
	CodeNotHeld      Code = 4 // the role is not held by this claim, or the claim is gone
	CodeIsDir        Code = 5 // the key has keys below it
	CodeNotDir       Code = 6 // a key above it has a value
	CodeFull         Code = 7 // the state has no room
	CodeChanged      Code = 8 // the record that the command depends on is another one by now
	CodeNoTransferee Code = 9 // nobody waits for the role whom it could go to

	codeSuperseded Code = 10 // a later process of the node, which this one's directory does not know, has had a session
)

// Answer is what the state machine says to a command, and the index of the entry that it answers.
type Answer struct {
	Seq, Index uint64
	Code       Code
}

// UnknownVersion says that a record has another format than this program writes.
func UnknownVersion(got, own byte) error {
	if got < own {
		return fmt.Errorf("format %d is of a development version of flotilla and cannot be read any more; empty the data directory to join as a new node", got)
	}
	return fmt.Errorf("format %d is not known to this version of flotilla; upgrade this node", got)
}
