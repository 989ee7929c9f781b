package limits

import (
	"math"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// Request is the body of rpc.Limit: a node tells the leader what it owes.
type Request struct {
	// Limiters are the limiters that it owes something of.
	Limiters []Owing
}

// Owing is what a node owes of one limiter.
type Owing struct {
	// Bucket and Name name the limiter.
	Bucket, Name string

	// Limit is the limit as this node has it.
	Limit Limit

	// Debts are the debts.
	Debts []Debt
}

// Debt is what a node owes of one key.
type Debt struct {
	// Key is the key, in the form that shorten returns.
	Key string

	// Owed is how much it owes, at least 1.
	Owed uint64
}

// Encode returns the wire form of m.
func (m Request) Encode() []byte {
	var e codec.Encoder
	e.Uint(uint64(len(m.Limiters)))
	for _, o := range m.Limiters {
		e.String(o.Bucket)
		e.String(o.Name)
		e.Uint(math.Float64bits(o.Limit.Rate))
		e.Uint(uint64(o.Limit.Burst))
		e.Uint(uint64(len(o.Debts)))
		for _, d := range o.Debts {
			e.String(d.Key)
			e.Uint(d.Owed)
		}
	}
	return e.B
}

// DecodeRequest is the inverse of Encode. It refuses what no node sends.
func DecodeRequest(b []byte) (Request, error) {
	var m Request
	d := codec.Decoder{B: b}
	for range d.Count() {
		o := Owing{Bucket: d.String(), Name: d.String(), Limit: Limit{Rate: math.Float64frombits(d.Uint())}}
		burst := d.Uint()
		o.Limit.Burst = int(min(burst, MaxBurst+1))
		d.Bad = d.Bad || o.Limit.Check() != nil || len(o.Bucket) > MaxName || len(o.Name) > MaxName
		for range d.Count() {
			debt := Debt{Key: d.String(), Owed: d.Uint()}
			d.Bad = d.Bad || len(debt.Key) > maxKey+1 || debt.Owed == 0 || debt.Owed > burst
			o.Debts = append(o.Debts, debt)
		}
		m.Limiters = append(m.Limiters, o)
	}
	return m, d.End()
}

// Reply is the answer to rpc.Limit.
type Reply struct {
	// Answers has an answer to each debt, in the order of the request.
	Answers []Answer
}

// Answer is what the leader says to a debt.
type Answer struct {
	// Accepted is how much of the debt is settled.
	Accepted uint64

	// Wait is after what time the leader can accept more, a second at most, in milliseconds. It has no
	// meaning if all is settled.
	Wait time.Duration
}

// Encode returns the wire form of m.
func (m Reply) Encode() []byte {
	var e codec.Encoder
	e.Uint(uint64(len(m.Answers)))
	for _, a := range m.Answers {
		e.Uint(a.Accepted)
		e.Uint(uint64(a.Wait / time.Millisecond))
	}
	return e.B
}

// DecodeReply is the inverse of Encode.
func DecodeReply(b []byte) (Reply, error) {
	var m Reply
	d := codec.Decoder{B: b}
	for range d.Count() {
		a := Answer{Accepted: d.Uint()}
		wait := d.Uint()
		d.Bad = d.Bad || wait > uint64(maxWait/time.Millisecond)
		a.Wait = time.Duration(min(wait, 1000)) * time.Millisecond
		m.Answers = append(m.Answers, a)
	}
	return m, d.End()
}
