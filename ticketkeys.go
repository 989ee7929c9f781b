package flotilla

import "github.com/flotilla-ha/flotilla/internal/codec"

// ticketKeys are the keys of session tickets. It is immutable.
type ticketKeys struct {
	index    uint64 // of the entry that made them
	time     int64  // Unix nanoseconds of the proposer's clock
	next     []byte
	current  []byte   // nil: next has not been current yet
	previous [][]byte // the newest first
}

// rotateTickets lets the next key be current and takes another as next, if the keys are those that the command is about. With flag it
// drops all that there are.
func (s *state) rotateTickets(index uint64, c *command, fx *effects) code {
	old := s.tickets
	if !c.flag && old.madeAt() != c.cond {
		return codeChanged
	}
	next := &ticketKeys{index: index, time: c.time, next: c.value}
	if !c.flag && old != nil {
		next.current = old.next
		if old.current != nil {
			next.previous = append([][]byte{old.current}, old.previous[:min(len(old.previous), previousTickets-1)]...)
		}
	}
	s.tickets = next
	fx.ticket(c.flag)
	return codeOK
}

// madeAt returns the index of the keys, 0 if there are none.
func (k *ticketKeys) madeAt() uint64 {
	if k == nil {
		return 0
	}
	return k.index
}

func (fx *effects) ticket(dropped bool) {
	if fx != nil {
		fx.tickets, fx.dropped = true, fx.dropped || dropped
	}
}

func (k *ticketKeys) encode(e *codec.Encoder) {
	e.Uint(k.index)
	e.Int(k.time)
	e.Bytes(k.next)
	e.Bytes(k.current)
	e.Uint(uint64(len(k.previous)))
	for _, p := range k.previous {
		e.Bytes(p)
	}
}

func decodeTicketKeys(d *codec.Decoder) (*ticketKeys, error) {
	k := &ticketKeys{index: d.Uint(), time: d.Int(), next: d.Bytes(), current: d.Bytes()}
	if len(k.current) == 0 {
		k.current = nil
	}
	for range d.Count() {
		k.previous = append(k.previous, d.Bytes())
	}
	if err := d.End(); err != nil {
		return nil, err
	}
	for _, key := range append([][]byte{k.next}, k.previous...) {
		if len(key) != ticketKeySize {
			return nil, codec.ErrMalformed
		}
	}
	if k.current != nil && len(k.current) != ticketKeySize {
		return nil, codec.ErrMalformed
	}
	return k, nil
}

const (
	previousTickets = 2 // keys that are accepted after they were current
	ticketKeySize   = 32
)
