package state

import "github.com/flotilla-ha/flotilla/internal/codec"

// TicketKeys are the keys of session tickets. It is immutable.
type TicketKeys struct {
	Index    uint64 // of the entry that made them
	Time     int64  // Unix nanoseconds of the proposer's clock
	Next     []byte
	Current  []byte   // nil: next has not been current yet
	Previous [][]byte // the newest first
}

// rotateTickets lets the next key be current and takes another as next, if the keys are those that the command is about. With flag it
// drops all that there are.
func (s *State) rotateTickets(index uint64, c *Command, fx *Effects) Code {
	old := s.Tickets
	if !c.Flag && old.MadeAt() != c.Cond {
		return CodeChanged
	}
	next := &TicketKeys{Index: index, Time: c.Time, Next: c.Value}
	if !c.Flag && old != nil {
		next.Current = old.Next
		if old.Current != nil {
			next.Previous = append([][]byte{old.Current}, old.Previous[:min(len(old.Previous), PreviousTickets-1)]...)
		}
	}
	s.Tickets = next
	fx.ticket(c.Flag)
	return CodeOK
}

// MadeAt returns the index of the keys, 0 if there are none.
func (k *TicketKeys) MadeAt() uint64 {
	if k == nil {
		return 0
	}
	return k.Index
}

func (fx *Effects) ticket(dropped bool) {
	if fx != nil {
		fx.Tickets, fx.Dropped = true, fx.Dropped || dropped
	}
}

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

func DecodeTicketKeys(d *codec.Decoder) (*TicketKeys, error) {
	k := &TicketKeys{Index: d.Uint(), Time: d.Int(), Next: d.Bytes(), Current: d.Bytes()}
	if len(k.Current) == 0 {
		k.Current = nil
	}
	for range d.Count() {
		k.Previous = append(k.Previous, d.Bytes())
	}
	if err := d.End(); err != nil {
		return nil, err
	}
	for _, key := range append([][]byte{k.Next}, k.Previous...) {
		if len(key) != TicketKeySize {
			return nil, codec.ErrMalformed
		}
	}
	if k.Current != nil && len(k.Current) != TicketKeySize {
		return nil, codec.ErrMalformed
	}
	return k, nil
}

const (
	PreviousTickets = 2 // keys that are accepted after they were current
	TicketKeySize   = 32
)
