package state

import "github.com/flotilla-ha/flotilla/internal/codec"

// The keys of session tickets.
const (
	PreviousTickets = 2  // keys that are accepted after they were current
	TicketKeySize   = 32 // bytes
)

// TicketKeys are the keys of session tickets. They are immutable.
type TicketKeys struct {
	Index    uint64   // of the entry that made them
	Time     int64    // the proposer's clock in Unix nanoseconds
	Next     []byte   // the next current key; every node has it before it is used
	Current  []byte   // seals tickets; nil: no key has been current yet
	Previous [][]byte // the newest first
}

// MadeAt returns the index of the keys, 0 if there are none.
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
	Key     []byte // TicketKeySize random bytes
	Follows uint64 // MadeAt of the keys that it follows; 0: there are none
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
	Key []byte // TicketKeySize random bytes
}

func (DropTickets) number() byte { return numberDropTickets }

func (c DropTickets) encode(e *codec.Encoder) { e.Bytes(c.Key) }

func decodeDropTickets(d *codec.Decoder) Change { return DropTickets{Key: decodeTicketKey(d)} }

func (c DropTickets) apply(s *State, e entry) Code {
	s.Tickets = &TicketKeys{Index: e.index, Time: e.Time, Next: c.Key}
	e.fx.ticket(true)
	return CodeOK
}
