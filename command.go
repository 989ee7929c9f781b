package flotilla

import (
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// A log entry is a version, a kind and the rest: either the wrapped keyring, which each node opens with the cluster's
// secret, or one command, sealed with a data key of the keyring by the node that proposes it.
const (
	entryVersion = 1
	entryKeyring = 'K'
	entryCommand = 'C'
)

// op says what a command does. Numbers are for ever: they are in logs. A node that meets one that it does not know stops.
type op byte

const (
	opStart  op = 1 // a leader's term begins; changes nothing but the index
	opOpen   op = 2 // a node's session begins: key holds the process's boot number
	opEnd    op = 3 // a session ends: target, number
	opMember op = 4 // a member's name and address: target, key, value
	opStore  op = 5 // key, value; number: what the state may have at the most
	opDelete op = 6 // key and all below it
	opLock   op = 7 // key; flag: wait for it; number: as opStore
	opUnlock op = 8 // key; number: the seq of the opLock
)

// command is one change of the state. Which of the fields below time an op uses is said above.
type command struct {
	op      op
	node    string // who proposes
	session uint64 // its session, 0: none is needed
	seq     uint64 // number within the session: a repeated one is answered from memory
	acked   uint64 // all answers up to this seq have reached the node
	time    int64  // the proposer's clock in Unix nanoseconds, shown as the time of modification, never compared

	key    string
	value  []byte
	target string
	number uint64
	flag   bool
}

func (c *command) encode() []byte {
	e := encoder{b: make([]byte, 0, 128+len(c.key)+len(c.value))}
	e.byte(byte(c.op))
	e.string(c.node)
	e.uint(c.session)
	e.uint(c.seq)
	e.uint(c.acked)
	e.int(c.time)
	e.string(c.key)
	e.bytes(c.value)
	e.string(c.target)
	e.uint(c.number)
	e.bool(c.flag)
	return e.b
}

func decodeCommand(b []byte) (command, error) {
	d := decoder{b: b}
	c := command{
		op:      op(d.byte()),
		node:    d.string(),
		session: d.uint(),
		seq:     d.uint(),
		acked:   d.uint(),
		time:    d.int(),
		key:     d.string(),
		value:   d.bytes(),
		target:  d.string(),
		number:  d.uint(),
		flag:    d.bool(),
	}
	if err := d.end(); err != nil {
		return command{}, err
	}
	if c.op < opStart || c.op > opUnlock {
		return command{}, fmt.Errorf("command %d is not known to this version of flotilla; upgrade this node", c.op)
	}
	return c, nil
}

// sealCommand makes the log entry of c.
func sealCommand(k *seal.Keyring, c *command) []byte {
	return append([]byte{entryVersion, entryCommand}, k.Seal(c.encode())...)
}

// openEntry is the inverse of sealCommand.
func openEntry(k *seal.Keyring, entry []byte) (command, error) {
	if len(entry) < 2 || entry[0] != entryVersion || entry[1] != entryCommand {
		return command{}, errMalformed
	}
	plain, err := k.Open(entry[2:])
	if err != nil {
		return command{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	return decodeCommand(plain)
}

// keyringEntry makes the log entry that gives a new cluster its identity and its keys.
func keyringEntry(cluster string, wrapped []byte) []byte {
	e := encoder{b: []byte{entryVersion, entryKeyring}}
	e.string(cluster)
	e.bytes(wrapped)
	return e.b
}

// code is the outcome of a command, as the state machine gives it.
type code byte

const (
	codeOK      code = 0
	codeEnded   code = 1 // the session has ended: the command did nothing now
	codeQueued  code = 2 // the lock is held; the claim waits
	codeHeld    code = 3 // the lock is held; the claim does not wait
	codeNotHeld code = 4 // the lock is not held by this claim
	codeIsDir   code = 5 // the key has keys below it
	codeNotDir  code = 6 // a key above it has a value
	codeFull    code = 7 // the state has no room
)

// answer is what the state machine says to a command, and the index of the entry that it answers.
type answer struct {
	seq, index uint64
	code       code
}
