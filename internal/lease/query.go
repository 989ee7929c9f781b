package lease

import "github.com/flotilla-ha/flotilla/internal/codec"

// expiredQuery is the body of rpc.Expired: has every grant to this session expired for you?
type expiredQuery struct{ SessionID }

func (q expiredQuery) encode() []byte {
	var e codec.Encoder
	e.String(q.Node)
	e.Uint(q.Number)
	return e.B
}

func decodeExpiredQuery(b []byte) (expiredQuery, error) {
	d := codec.Decoder{B: b}
	q := expiredQuery{SessionID{Node: d.String(), Number: d.Uint()}}
	return q, d.End()
}

// expiredAnswer is the answer to an expiredQuery.
type expiredAnswer struct{ expired bool }

func (a expiredAnswer) encode() []byte {
	var e codec.Encoder
	e.Bool(a.expired)
	return e.B
}

func decodeExpiredAnswer(b []byte) (expiredAnswer, error) {
	d := codec.Decoder{B: b}
	a := expiredAnswer{expired: d.Bool()}
	return a, d.End()
}
