package lease

import (
	"iter"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// The kinds of datagrams. A number is never used again for something else.
const (
	kindRenew   = 1
	kindGrant   = 2
	kindExpired = 3
	kindEnded   = 4
	kindLeaving = 5
	kindKept    = 6
)

// Renew asks a voter to grant the sender's session a lease.
type Renew struct {
	Session uint64 // of the sender
	Sent    uint64 // when this was sent, in a form that only the sender understands
	Urgent  bool   // answer at once, not together with your next datagram to me
}

// Grant answers a Renew: the sender is bound to the session from now on.
type Grant struct {
	Session uint64 // that of the Renew
	Sent    uint64 // that of the Renew
	Clock   int64  // the sender's wall clock in Unix milliseconds; no lease depends on it
}

// Expired reports to the leader that the sender has applied a suspicion and that no grant binds it
// to that session any more.
type Expired struct{ Suspicion }

// Ended answers a Renew whose session has ended.
type Ended struct {
	Session uint64 // that of the Renew
}

// Leaving says whether the sender is shutting down.
type Leaving struct {
	Leaving bool // false: not any more
}

// Kept says how long the sender has kept a Grant before it sent it. So the receiver knows how long
// the way is, and no lease depends on it. It is the last of the datagrams that travel together: an
// older version takes none that follow it.
type Kept struct {
	Sent uint64 // that of the Renew, and of the Grant
	For  uint64 // nanoseconds since the Renew came
}

// Suspicion is one suspicion of a session.
type Suspicion struct {
	SessionID
	Index uint64 // of the entry that suspected it
}

// datagram is one message between lease managers. Several can travel together. Each may be lost,
// come twice, or come late, so each says all that it means.
type datagram interface{ encode(e *codec.Encoder) }

func (d Renew) encode(e *codec.Encoder) {
	e.Byte(kindRenew)
	e.Uint(d.Session)
	e.Uint(d.Sent)
	e.Bool(d.Urgent)
}

func decodeRenew(d *codec.Decoder) Renew {
	return Renew{Session: d.Uint(), Sent: d.Uint(), Urgent: d.Bool()}
}

func (d Grant) encode(e *codec.Encoder) {
	e.Byte(kindGrant)
	e.Uint(d.Session)
	e.Uint(d.Sent)
	e.Int(d.Clock)
}

func decodeGrant(d *codec.Decoder) Grant {
	return Grant{Session: d.Uint(), Sent: d.Uint(), Clock: d.Int()}
}

func (d Expired) encode(e *codec.Encoder) {
	e.Byte(kindExpired)
	e.String(d.Node)
	e.Uint(d.Number)
	e.Uint(d.Index)
}

func decodeExpired(d *codec.Decoder) Expired {
	return Expired{Suspicion{SessionID: SessionID{Node: d.String(), Number: d.Uint()}, Index: d.Uint()}}
}

func (d Ended) encode(e *codec.Encoder) {
	e.Byte(kindEnded)
	e.Uint(d.Session)
}

func decodeEnded(d *codec.Decoder) Ended { return Ended{Session: d.Uint()} }

func (d Leaving) encode(e *codec.Encoder) {
	e.Byte(kindLeaving)
	e.Bool(d.Leaving)
}

func decodeLeaving(d *codec.Decoder) Leaving { return Leaving{Leaving: d.Bool()} }

func (d Kept) encode(e *codec.Encoder) {
	e.Byte(kindKept)
	e.Uint(d.Sent)
	e.Uint(d.For)
}

func decodeKept(d *codec.Decoder) Kept { return Kept{Sent: d.Uint(), For: d.Uint()} }

// encode puts datagrams together, in this order.
func encode(all ...datagram) []byte {
	var e codec.Encoder
	for _, d := range all {
		d.encode(&e)
	}
	return e.B
}

// decode takes datagrams apart. It ends before the first one that is malformed or of an unknown
// kind: a newer version may say more.
func decode(b []byte) iter.Seq[datagram] {
	return func(yield func(datagram) bool) {
		for d := (codec.Decoder{B: b}); len(d.B) > 0; {
			var next datagram
			switch d.Byte() {
			case kindRenew:
				next = decodeRenew(&d)
			case kindGrant:
				next = decodeGrant(&d)
			case kindExpired:
				next = decodeExpired(&d)
			case kindEnded:
				next = decodeEnded(&d)
			case kindLeaving:
				next = decodeLeaving(&d)
			case kindKept:
				next = decodeKept(&d)
			}
			if next == nil || d.Bad || !yield(next) {
				return
			}
		}
	}
}
