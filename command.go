package flotilla

import (
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// A log entry is a version, a kind and the rest: either the wrapped keyring, which each node opens with the cluster's
// secret, or one command, sealed with a data key of the keyring by the node that proposes it.
const (
	entryVersion = 2
	entryKeyring = 'K'
	entryCommand = 'C'
)

// op says what a command does. Numbers are for ever: they are in logs. A node that meets one that it does not know stops.
type op byte

const (
	opStart   op = 1  // a leader's term begins; changes nothing but the index
	opOpen    op = 2  // a node's session begins: key holds the process's boot number, value those that its directory knows, target its address, number the session that it replaces, if that is still there; flag: which has left nothing to be seen
	opEnd     op = 3  // a session ends: target, number; cond: the suspicion that came true, voters: by these; 0: the node itself says so, or its will: key is byWill then; flag: and something of it may be seen yet; priority: for how long it was silent
	opMember  op = 4  // what a member says of itself, its name and address: target, key, value; flag: it has no directory; group: its former ID
	opStore   op = 5  // key, value; number: what the state may have at the most; target, cond: only if that record is of that index
	opDelete  op = 6  // key and all below it
	opClaim   op = 7  // a claim to a role: key; flag: wait for it; priority, group; number: as opStore; cond: if it is public 1 and the linger; voters: 1 if it is bequeathed
	opRelease op = 8  // a claim is given up: key; number: the seq of the opClaim
	opSuspect op = 9  // a session is promised no more lease: target, number
	opClear   op = 10 // the suspicion was wrong: target, number, cond: the suspicion
	opYield   op = 11 // the holder of key is asked to hand over, if the claim of seq number is better
	opPut     op = 12 // several records at once: value holds them; number: as opStore
	opTickets op = 13 // value: another key for session tickets; cond: the keys that it is to follow; flag: they are all dropped

	opMove op = 14 // the holder of key is asked to hand over to a claim of the node target; empty: to another node's
	opFree op = 15 // a role's holder is dead, and has been for long enough: key; number: the entry that ended its session; priority: as opEnd

	lastOp = opFree
)

// byWill is the key of an opEnd that the bearer of a will asks for.
const byWill = "will"

// fence is a condition: that the claim of seq, in the command's session, holds the role.
type fence struct {
	role string
	seq  uint64
}

// command is one change of the state. Which of the fields below fences an op uses is said above.
type command struct {
	op      op
	node    string // who proposes
	session uint64 // its session, 0: none is needed
	seq     uint64 // number within the session: a repeated one is answered from memory
	acked   uint64 // all answers up to this seq have reached the node
	time    int64  // the proposer's clock in Unix nanoseconds, shown as the time of modification, never compared

	fences []fence // the command does nothing unless all of them are true

	key      string
	value    []byte
	target   string
	number   uint64
	cond     uint64
	voters   uint64 // index of the configuration whose voters were counted
	flag     bool
	group    string
	priority int64
	stored   uint64 // opSuspect, opEnd: a committed entry that the node is known to have on its disk
}

func (c *command) encode() []byte {
	e := codec.Encoder{B: make([]byte, 0, 128+len(c.key)+len(c.value))}
	e.Byte(byte(c.op))
	e.String(c.node)
	e.Uint(c.session)
	e.Uint(c.seq)
	e.Uint(c.acked)
	e.Int(c.time)
	e.Uint(uint64(len(c.fences)))
	for _, f := range c.fences {
		e.String(f.role)
		e.Uint(f.seq)
	}
	e.String(c.key)
	e.Bytes(c.value)
	e.String(c.target)
	e.Uint(c.number)
	e.Uint(c.cond)
	e.Uint(c.voters)
	e.Bool(c.flag)
	e.String(c.group)
	e.Int(c.priority)
	e.Uint(c.stored)
	return e.B
}

func decodeCommand(b []byte) (command, error) {
	d := codec.Decoder{B: b}
	c := command{op: op(d.Byte()), node: d.String(), session: d.Uint(), seq: d.Uint(), acked: d.Uint(), time: d.Int()}
	for range d.Count() {
		c.fences = append(c.fences, fence{d.String(), d.Uint()})
	}
	c.key, c.value, c.target = d.String(), d.Bytes(), d.String()
	c.number, c.cond, c.voters = d.Uint(), d.Uint(), d.Uint()
	c.flag, c.group, c.priority, c.stored = d.Bool(), d.String(), d.Int(), d.Uint()
	if c.op < opStart || c.op > lastOp { // whose other fields need not be these
		return command{}, fmt.Errorf("command %d is not known to this version of flotilla; upgrade this node", c.op)
	}
	if err := d.End(); err != nil {
		return command{}, err
	}
	if c.op == opPut {
		if _, err := decodeRecords(c.value); err != nil {
			return command{}, err
		}
	}
	if c.op == opTickets && len(c.value) != ticketKeySize {
		return command{}, codec.ErrMalformed
	}
	return c, nil
}

// keyValue is one record of an opPut.
type keyValue struct {
	key   string
	value []byte
}

// encodeRecords makes the value of an opPut.
func encodeRecords(records []keyValue) []byte {
	var e codec.Encoder
	e.Uint(uint64(len(records)))
	for _, r := range records {
		e.String(r.key)
		e.Bytes(r.value)
	}
	return e.B
}

func decodeRecords(b []byte) ([]keyValue, error) {
	d := codec.Decoder{B: b}
	records := make([]keyValue, d.Count())
	for i := range records {
		records[i] = keyValue{d.String(), d.Bytes()}
	}
	return records, d.End()
}

// sealCommand makes the log entry of c.
func sealCommand(k *seal.Keyring, c *command) []byte {
	return append([]byte{entryVersion, entryCommand}, k.Seal(c.encode())...)
}

// openEntry is the inverse of sealCommand.
func openEntry(k *seal.Keyring, entry []byte) (command, error) {
	if len(entry) < 2 || entry[0] != entryVersion || entry[1] != entryCommand {
		return command{}, codec.ErrMalformed
	}
	plain, err := k.Open(entry[2:])
	if err != nil {
		return command{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	return decodeCommand(plain)
}

// keyringEntry makes the log entry that gives a new cluster its identity and its keys.
func keyringEntry(cluster string, wrapped []byte) []byte {
	e := codec.Encoder{B: []byte{entryVersion, entryKeyring}}
	e.String(cluster)
	e.Bytes(wrapped)
	return e.B
}

// code is the outcome of a command, as the state machine gives it.
type code byte

const (
	codeOK      code = 0
	codeEnded   code = 1 // the session has ended: the command did nothing now
	codeQueued  code = 2 // another claim holds the role; this one waits
	codeHeld    code = 3 // another claim holds the role; this one does not wait
	codeNotHeld code = 4 // the role is not held by this claim, or the claim is gone
	codeIsDir   code = 5 // the key has keys below it
	codeNotDir  code = 6 // a key above it has a value
	codeFull    code = 7 // the state has no room
	codeChanged code = 8 // the record that the command depends on is another one by now
	codeNoHeir  code = 9 // nobody waits for the role whom it could go to

	codeSuperseded code = 10 // a later process of the node, which this one's directory does not know, has had a session
)

// answer is what the state machine says to a command, and the index of the entry that it answers.
type answer struct {
	seq, index uint64
	code       code
}

// unknownVersion says that a record has another format than this program writes.
func unknownVersion(got, own byte) error {
	if got < own {
		return fmt.Errorf("format %d is of a development version of flotilla and cannot be read any more; empty the data directory to join as a new node", got)
	}
	return fmt.Errorf("format %d is not known to this version of flotilla; upgrade this node", got)
}
