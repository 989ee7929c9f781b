package state

import (
	"fmt"
	"slices"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// A log entry is a version, a kind, and the rest: either a keyring, or a sealed command.
const (
	// EntryVersion is the format version of log entries. It is the first byte.
	EntryVersion = 4

	// EntryKeyring is the kind of an entry with a Keyring. The kind is the second byte.
	EntryKeyring = 'K'

	// EntryCommand is the kind of an entry with a sealed Command.
	EntryCommand = 'C'
)

// decoderOf returns the function that decodes the change of that number, nil if there is none.
func decoderOf(number byte) func(*codec.Decoder) Change {
	switch number {
	case numberStartTerm:
		return decodeStartTerm
	case numberOpenSession:
		return decodeOpenSession
	case numberLeaveSession:
		return decodeLeaveSession
	case numberEndSession:
		return decodeEndSession
	case numberEndByDeathNotice:
		return decodeEndByDeathNotice
	case numberSuspect:
		return decodeSuspect
	case numberClearSuspicion:
		return decodeClearSuspicion
	case numberSetMember:
		return decodeSetMember
	case numberStoreRecord:
		return decodeStoreRecord
	case numberPutRecords:
		return decodePutRecords
	case numberDeleteRecords:
		return decodeDeleteRecords
	case numberClaimRole:
		return decodeClaimRole
	case numberReleaseRole:
		return decodeReleaseRole
	case numberYieldRole:
		return decodeYieldRole
	case numberMoveRole:
		return decodeMoveRole
	case numberExpireHoldDown:
		return decodeExpireHoldDown
	case numberRotateTickets:
		return decodeRotateTickets
	case numberDropTickets:
		return decodeDropTickets
	case numberAcceptSecret:
		return decodeAcceptSecret
	case numberUseSecret:
		return decodeUseSecret
	case numberDropSecrets:
		return decodeDropSecrets
	case numberRotateKeys:
		return decodeRotateKeys
	case numberForgetKeys:
		return decodeForgetKeys
	case numberSetVote:
		return decodeSetVote
	case numberRaiseVersion:
		return decodeRaiseVersion
	case numberEvictMember:
		return decodeEvictMember
	case numberShutOut:
		return decodeShutOut
	case numberEndEviction:
		return decodeEndEviction
	case numberWriteItems:
		return decodeWriteItems
	case numberExpireItems:
		return decodeExpireItems
	}
	return nil
}

// DecodeCommand is the inverse of [Command.Encode]. It refuses a number or a cluster version that
// it does not know before it reads on, because the rest may have another form then.
func DecodeCommand(b []byte) (Command, error) {
	d := codec.Decoder{B: b}
	number := d.Byte()
	c := Command{Requires: d.Uint()}
	if d.Bad {
		return Command{}, codec.ErrMalformed
	}
	decode := decoderOf(number)
	if decode == nil {
		return Command{}, fmt.Errorf("command %d is not known to this version of flotilla; upgrade this node", number)
	}
	if c.Requires > Version {
		return Command{}, fmt.Errorf("command %d: %w", number, unsupported(c.Requires))
	}
	c.Node, c.Session, c.Seq, c.Acked, c.Time = d.String(), d.Uint(), d.Uint(), d.Uint(), d.Int()
	for range d.Count() {
		c.Fences = append(c.Fences, Fence{d.String(), d.Uint()})
	}
	c.Change = decode(&d)
	if err := d.End(); err != nil {
		return Command{}, err
	}
	if c.Requires < requires(c.Change) {
		return Command{}, codec.ErrMalformed
	}
	return c, nil
}

// SealCommand makes the log entry of c.
func SealCommand(k *seal.Keyring, c *Command) []byte { return SealEntry(k, c.Encode()) }

// SealEntry makes the log entry of an encoded command.
func SealEntry(k *seal.Keyring, plain []byte) []byte {
	return k.AppendSealed(append(make([]byte, 0, 2+seal.Overhead+len(plain)), EntryVersion, EntryCommand), plain)
}

// OpenEntry is the inverse of SealEntry.
func OpenEntry(k *seal.Keyring, entry []byte) (plain []byte, err error) {
	if len(entry) < 2 || entry[0] != EntryVersion || entry[1] != EntryCommand {
		return nil, codec.ErrMalformed
	}
	if plain, err = k.Open(entry[2:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errs.ErrSealed, err)
	}
	return plain, nil
}

// Keyring is the entry that gives a new cluster its identity and its keys.
type Keyring struct {
	// Cluster is the identity of the cluster.
	Cluster string

	// Wrapped is the keyring, wrapped with the operator's secrets.
	Wrapped []byte
}

// Entry returns the whole log entry. [DecodeKeyring] reads what follows the version and the kind.
func (k Keyring) Entry() []byte {
	e := codec.Encoder{B: []byte{EntryVersion, EntryKeyring}}
	e.String(k.Cluster)
	e.Bytes(k.Wrapped)
	return e.B
}

// DecodeKeyring reads what follows the version and the kind of a log entry.
func DecodeKeyring(b []byte) (Keyring, error) {
	d := codec.Decoder{B: b}
	k := Keyring{Cluster: d.String(), Wrapped: d.Bytes()}
	if err := d.End(); err != nil {
		return Keyring{}, err
	}
	return k, nil
}

// UnknownVersion returns the error for data with the format version got. own is the version that
// this program writes.
func UnknownVersion(got, own byte) error {
	if got < own {
		return fmt.Errorf("format %d is of a development version of flotilla and cannot be read any more; empty the data directory to join as a new node", got)
	}
	return fmt.Errorf("format %d is not known to this version of flotilla; upgrade this node", got)
}

// unsupported returns the error for what requires a later cluster version.
func unsupported(version uint64) error {
	return fmt.Errorf("it requires cluster version %d, and this version of flotilla supports %d; upgrade this node", version, Version)
}

// IsSealedBy reports whether an entry is a command that the data key id has sealed.
func IsSealedBy(entry []byte, id seal.KeyID) bool {
	return len(entry) > 2 && entry[0] == EntryVersion && entry[1] == EntryCommand && seal.IsSealedBy(entry[2:], id)
}

// IsTooLate reports whether an entry is a command that a forgotten data key has sealed. Its node
// had it on the way when the key was forgotten. No node can open it any more, so it does nothing.
func (q Seals) IsTooLate(entry []byte) bool {
	return slices.ContainsFunc(q.Forgotten, func(id seal.KeyID) bool { return IsSealedBy(entry, id) })
}
