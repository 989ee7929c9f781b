package deathnotice

import (
	"crypto/ed25519"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// version is that of the encoding.
const version = 1

// Notice is a death notice. Its fields are as in crypto/tls.
type Notice struct {
	Addrs      []string // of nodes; one of them is enough
	ServerName string   // that a connection asks for
	Protocol   string   // of ALPN
	Time       int64    // Unix seconds; certificates are verified as of then
	CA         []byte   // DER
	Cert       []byte   // DER
	Key        []byte   // seed of the Ed25519 key
}

// Encode returns the notice as bytes.
func (n *Notice) Encode() []byte {
	e := codec.Encoder{}
	e.Byte(version)
	e.Uint(uint64(len(n.Addrs)))
	for _, a := range n.Addrs {
		e.String(a)
	}
	e.String(n.ServerName)
	e.String(n.Protocol)
	e.Int(n.Time)
	for _, b := range [][]byte{n.CA, n.Cert, n.Key} {
		e.Bytes(b)
	}
	return e.B
}

// Decode is the inverse of Encode. It returns an error for bytes that Encode did not make.
func Decode(b []byte) (*Notice, error) {
	d := codec.Decoder{B: b}
	if v := d.Byte(); v != version {
		return nil, fmt.Errorf("version %d of a death notice is not known to this version of flotilla", v)
	}
	n := new(Notice)
	for range d.Count() {
		n.Addrs = append(n.Addrs, d.String())
	}
	n.ServerName, n.Protocol, n.Time = d.String(), d.String(), d.Int()
	n.CA, n.Cert, n.Key = d.Bytes(), d.Bytes(), d.Bytes()
	if err := d.End(); err != nil {
		return nil, err
	}
	if len(n.Key) != ed25519.SeedSize {
		return nil, codec.ErrMalformed
	}
	return n, nil
}
