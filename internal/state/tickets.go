package state

import (
	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/codec"
)

// These are the limits of ticket keys.
const (
	// PreviousTickets is the number of keys that are accepted after they were current.
	PreviousTickets = 2

	// TicketKeySize is the number of bytes in a key.
	TicketKeySize = 32
)

// TicketKeys are the keys of session tickets. They are immutable.
type TicketKeys struct {
	// Index is the index of the entry that made the keys.
	Index uint64

	// Time is when they were made, by the proposer's clock in Unix nanoseconds.
	Time int64

	// Next is the key that becomes current next. Every node has it before it is used.
	Next []byte

	// Current is the key that seals tickets. Nil: no key has been current yet.
	Current []byte

	// Previous are the keys that were current before, the newest first.
	Previous [][]byte
}

// MadeAt returns the index of the keys. It returns 0 if there are none, that is, if k is nil.
func (k *TicketKeys) MadeAt() uint64 {
	if k == nil {
		return 0
	}
	return k.Index
}

// Encode writes the keys as a snapshot has them. [DecodeTicketKeys] is the inverse.
func (k *TicketKeys) Encode(e *codec.Encoder) {
	e.Uint(k.Index)
	e.Int(k.Time)
	e.Bytes(k.Next)
	e.Bytes(k.Current)
	e.Uint(uint64(len(k.Previous)))
	for _, p := range k.Previous {
		e.Bytes(p)
	}
}

// DecodeTicketKeys is the inverse of Encode, up to the end of d.
func DecodeTicketKeys(d *codec.Decoder) (*TicketKeys, error) {
	k := &TicketKeys{Index: d.Uint(), Time: d.Int(), Next: decodeTicketKey(d), Current: d.Bytes()}
	if len(k.Current) == 0 {
		k.Current = nil
	} else if len(k.Current) != TicketKeySize {
		d.Bad = true
	}
	for range d.Count() {
		k.Previous = append(k.Previous, decodeTicketKey(d))
	}
	if err := d.End(); err != nil {
		return nil, err
	}
	return k, nil
}

func decodeTicketKey(d *codec.Decoder) []byte {
	key := d.Bytes()
	if len(key) != TicketKeySize {
		d.Bad = true
	}
	return key
}

// RotateTickets makes the next key the current one, and adds another next key. It does nothing if
// the keys are not those that it follows.
type RotateTickets struct {
	// Key is the new next key, TicketKeySize random bytes.
	Key []byte

	// Follows is MadeAt of the keys that the command follows. 0: there are none.
	Follows uint64
}

func (RotateTickets) number() byte { return numberRotateTickets }

func (c RotateTickets) encode(e *codec.Encoder) {
	e.Bytes(c.Key)
	e.Uint(c.Follows)
}

func decodeRotateTickets(d *codec.Decoder) Change {
	return RotateTickets{Key: decodeTicketKey(d), Follows: d.Uint()}
}

func (c RotateTickets) apply(s *State, e entry) Code {
	old := s.Tickets
	if old.MadeAt() != c.Follows {
		return CodeChanged
	}
	next := &TicketKeys{Index: e.index, Time: e.Time, Next: c.Key}
	if old != nil {
		next.Current = old.Next
		if old.Current != nil {
			next.Previous = append([][]byte{old.Current}, old.Previous[:min(len(old.Previous), PreviousTickets-1)]...)
		}
	}
	s.Tickets = next
	e.fx.ticket(false)
	return CodeOK
}

// DropTickets makes all tickets worthless: the new keys are a next key and nothing else.
type DropTickets struct {
	// Key is the new next key, TicketKeySize random bytes.
	Key []byte
}

func (DropTickets) number() byte { return numberDropTickets }

func (c DropTickets) encode(e *codec.Encoder) { e.Bytes(c.Key) }

func decodeDropTickets(d *codec.Decoder) Change { return DropTickets{Key: decodeTicketKey(d)} }

func (c DropTickets) apply(s *State, e entry) Code {
	s.Tickets = &TicketKeys{Index: e.index, Time: e.Time, Next: c.Key}
	e.fx.ticket(true)
	e.fx.report(News{Kind: event.TicketsDropped, Index: e.index})
	return CodeOK
}
