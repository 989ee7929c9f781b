package membership

import (
	"github.com/flotilla-ha/flotilla/internal/codec"
)

// OpenSession asks the leader for a session of the caller's process.
type OpenSession struct {
	Incarnation string   // of the process
	Addr        string   // what peers dial
	Replaces    uint64   // the session that the new one takes the place of; 0: the node has none
	Clean       bool     // nothing of that session can be seen any more
	Processes   []string // that have had the node's directory, see Identity
}

// Encode returns the message in its binary form.
func (m OpenSession) Encode() []byte {
	var e codec.Encoder
	e.String(m.Incarnation)
	e.String(m.Addr)
	e.Uint(m.Replaces)
	e.Bool(m.Clean)
	e.Uint(uint64(len(m.Processes)))
	for _, p := range m.Processes {
		e.String(p)
	}
	return e.B
}

// DecodeOpenSession is the inverse of Encode.
func DecodeOpenSession(b []byte) (OpenSession, error) {
	d := codec.Decoder{B: b}
	m := OpenSession{Incarnation: d.String(), Addr: d.String(), Replaces: d.Uint(), Clean: d.Bool()}
	for range d.Count() {
		m.Processes = append(m.Processes, d.String())
	}
	return m, d.End()
}

// EndSession asks the leader to end the caller's session.
type EndSession struct {
	Number   uint64 // of the session
	HoldDown bool   // something of it may be seen yet, so its public roles enter hold-down
}

// Encode returns the message in its binary form.
func (m EndSession) Encode() []byte {
	var e codec.Encoder
	e.Uint(m.Number)
	e.Bool(m.HoldDown)
	return e.B
}

// DecodeEndSession is the inverse of Encode.
func DecodeEndSession(b []byte) (EndSession, error) {
	d := codec.Decoder{B: b}
	return EndSession{Number: d.Uint(), HoldDown: d.Bool()}, d.End()
}

// DeathNotice tells the leader that the process of a session is dead, and that nothing that the
// session held can be seen any more.
type DeathNotice struct {
	Node   string // node ID
	Number uint64 // of the session
}

// Encode returns the message in its binary form.
func (m DeathNotice) Encode() []byte {
	var e codec.Encoder
	e.String(m.Node)
	e.Uint(m.Number)
	return e.B
}

// DecodeDeathNotice is the inverse of Encode.
func DecodeDeathNotice(b []byte) (DeathNotice, error) {
	d := codec.Decoder{B: b}
	return DeathNotice{Node: d.String(), Number: d.Uint()}, d.End()
}

// ProcessName is the answer to the call Process.
type ProcessName struct {
	Incarnation string // of the process that answers
}

// Encode returns the message in its binary form.
func (m ProcessName) Encode() []byte {
	var e codec.Encoder
	e.String(m.Incarnation)
	return e.B
}

// DecodeProcessName is the inverse of Encode.
func DecodeProcessName(b []byte) (ProcessName, error) {
	d := codec.Decoder{B: b}
	return ProcessName{Incarnation: d.String()}, d.End()
}
