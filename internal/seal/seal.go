// Package seal turns a cluster's plain bytes into bytes that disks, wires and backups may show to anybody, and back.
//
// There are two tiers of keys. The operator's Secret is never stored: it wraps the keyring and is the seed of the internal
// certificate authority. The Keyring holds random data keys; it is stored and replicated only wrapped. So a new secret
// means to wrap some hundred bytes again, and only a new data key means to seal anew what was sealed.
//
//	Secret ─ HKDF ┬ "kid"  public ID                 data key ─ HKDF ┬ "data/id"      public ID
//	              ├ "ca"   seed of the internal CA                   ├ "data/record"  key of envelopes
//	              └ "kek"  wraps the keyring                         ├ "data/stream"  key that makes a key per stream
//	                                                                 └ "data/wrap"    authenticates a wrapped keyring
//
// An envelope holds one record, a stream holds a snapshot or a backup. Both use NaCl's secretbox: XSalsa20 and Poly1305. Its
// nonces of 24 bytes may be random without a count of uses: 2^48 of them under one key collide with a probability of 2^-97.
// Whatever is sealed names the key that opens it, and no other is tried.
package seal

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
)

const (
	keySize   = 32
	nonceSize = 24
	salt      = "flotilla/v1" // of every HKDF
)

var (
	// ErrFormat is wrapped by the error of input that this package cannot have written: too short, too long, another kind of
	// file, or a version that it does not know.
	ErrFormat = errors.New("not a sealed format that this version knows")

	// ErrTampered is wrapped by the error of input that was changed, cut, put together or added to after it was sealed.
	ErrTampered = errors.New("sealed data was changed")
)

// KeyID names a Secret or a data key. It is public: the key cannot be found from it. The zero KeyID names none.
type KeyID [8]byte

// String returns the 16 hexadecimal digits of id.
func (id KeyID) String() string { return fmt.Sprintf("%x", id[:]) }

// UnknownKeyError says that what was to be opened was sealed with a data key that the keyring has not got.
type UnknownKeyError struct {
	ID KeyID // the key that sealed it
}

// Error names the key.
func (e *UnknownKeyError) Error() string {
	return "sealed with data key " + e.ID.String() + ", which is not in the keyring"
}

// WrongSecretError says that none of the secrets at hand opens a keyring.
type WrongSecretError struct {
	Want []KeyID // the secrets that open it
	Have []KeyID // the secrets that were tried
}

// Error names the secrets on both sides.
func (e *WrongSecretError) Error() string {
	return "sealed for secret " + list(e.Want) + ", this is secret " + list(e.Have)
}

func list(ids []KeyID) string {
	if len(ids) == 0 {
		return "(none)"
	}
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteString(" or ")
		}
		b.WriteString(id.String())
	}
	return b.String()
}

// derive returns n bytes for one purpose by HKDF-SHA256 (RFC 5869).
func derive(key []byte, label string, n int) []byte {
	out, err := hkdf.Key(sha256.New, key, []byte(salt), label, n)
	if err != nil {
		panic("seal: " + err.Error()) // only for an n beyond 255 hashes, and every n is a constant of this package
	}
	return out
}
