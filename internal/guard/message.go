package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Messages go through a socket that keeps their boundaries. A message is a version, a kind, a
// number that its acknowledgement repeats, and the content of its kind.

// version is that of everything that program and guard share: messages, the page, the variable.
const version = 2

// kind says what a message means. A number is never reused.
type kind byte

const (
	// From the program. The guard acknowledges all but the last.
	kindWatch  kind = 1 // the addresses to remove
	kindTable  kind = 2 // the table to remove
	kindNotice kind = 3 // the death notices
	kindAsk    kind = 4 // are you there?
	kindBye    kind = 5 // exit and touch nothing

	// From the guard.
	kindHello   kind = 16 // ready; or, with a text, why it cannot be
	kindAck     kind = 17 // the message with that number is in force
	kindRemoved kind = 18 // the deadline has passed, and addresses have been removed
)

const (
	headerSize   = 1 + 1 + 4
	noticeHeader = 4 // the length of a death notice
	maxText      = 1024
	maxMessage   = headerSize + MaxNotices
)

var (
	errShort   = errors.New("a message is cut off")
	errVersion = errors.New("program and guard are of different versions")
)

// message is a message between a program and its guard.
type message struct {
	kind    kind
	seq     uint32
	addrs   []Addr   // of kindWatch
	text    string   // of kindTable and kindHello
	notices [][]byte // of kindNotice
}

// check returns why the receiver would refuse m.
func (m message) check() error {
	if len(m.addrs) > MaxAddrs {
		return fmt.Errorf("%d addresses, %d are possible", len(m.addrs), MaxAddrs)
	}
	for _, a := range m.addrs {
		if err := a.check(); err != nil {
			return err
		}
	}
	size := 0
	for _, n := range m.notices {
		size += noticeHeader + len(n)
	}
	if size > MaxNotices {
		return fmt.Errorf("death notices of %d bytes, %d are possible", size, MaxNotices)
	}
	if m.kind == kindTable && len(m.text) > maxTable {
		return fmt.Errorf("the name of a table has %d bytes, %d are possible", len(m.text), maxTable)
	}
	return nil
}

// marshal returns m's bytes.
func (m message) marshal() []byte {
	b := []byte{version, byte(m.kind)}
	b = binary.BigEndian.AppendUint32(b, m.seq)
	switch m.kind {
	case kindWatch:
		for _, a := range m.addrs {
			ip := a.Prefix.Addr().AsSlice()
			b = binary.BigEndian.AppendUint32(b, uint32(a.Index))
			b = append(b, byte(len(ip)), byte(a.Prefix.Bits()))
			b = append(b, ip...)
		}
	case kindTable:
		b = append(b, m.text...)
	case kindHello:
		b = append(b, m.text[:min(len(m.text), maxText)]...)
	case kindNotice:
		for _, n := range m.notices {
			b = binary.BigEndian.AppendUint32(b, uint32(len(n)))
			b = append(b, n...)
		}
	}
	return b
}

// parse is the inverse of marshal. The message does not refer to b.
func parse(b []byte) (message, error) {
	if len(b) < headerSize {
		return message{}, errShort
	}
	if b[0] != version {
		return message{}, errVersion
	}
	m := message{kind: kind(b[1]), seq: binary.BigEndian.Uint32(b[2:])}
	b = b[headerSize:]
	switch m.kind {
	case kindWatch:
		for len(b) > 0 {
			if len(b) < 6 || len(b) < 6+int(b[4]) {
				return message{}, errShort
			}
			end := 6 + int(b[4])
			ip, ok := netip.AddrFromSlice(b[6:end])
			if !ok {
				return message{}, fmt.Errorf("an address of %d bytes", b[4])
			}
			m.addrs = append(m.addrs, Addr{Index: int(binary.BigEndian.Uint32(b)), Prefix: netip.PrefixFrom(ip, int(b[5]))})
			b = b[end:]
		}
	case kindTable, kindHello:
		if len(b) > maxText {
			return message{}, fmt.Errorf("a text of %d bytes", len(b))
		}
		m.text = string(b)
	case kindNotice:
		for len(b) > 0 {
			if len(b) < noticeHeader || uint64(len(b)-noticeHeader) < uint64(binary.BigEndian.Uint32(b)) {
				return message{}, errShort
			}
			end := noticeHeader + int(binary.BigEndian.Uint32(b))
			m.notices = append(m.notices, slices.Clone(b[noticeHeader:end]))
			b = b[end:]
		}
	case kindAsk, kindBye, kindAck, kindRemoved:
		if len(b) > 0 {
			return message{}, fmt.Errorf("message %d has %d bytes too many", m.kind, len(b))
		}
	default:
		return message{}, fmt.Errorf("message %d is not known", m.kind)
	}
	return m, m.check()
}
