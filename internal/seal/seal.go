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
	// ErrFormat is wrapped by the error of input that this package cannot have written: too short,
	// too long, another kind of file, or a version that it does not know.
	ErrFormat = errors.New("not a sealed format that this version knows")

	// ErrTampered is wrapped by the error of input that was changed, cut, combined or extended
	// after it was sealed.
	ErrTampered = errors.New("sealed data was changed")
)

// KeyID names a Secret or a data key. It is public: the key cannot be found from it. The zero KeyID
// names none.
type KeyID [8]byte

// String returns the 16 hexadecimal digits of id.
func (id KeyID) String() string { return fmt.Sprintf("%x", id[:]) }

// UnknownKeyError says that input was sealed with a data key that is not in the keyring.
type UnknownKeyError struct {
	ID KeyID // the key that sealed it
}

// Error names the key.
func (e *UnknownKeyError) Error() string {
	return "sealed with data key " + e.ID.String() + ", which is not in the keyring"
}

// WrongSecretError says that none of the given secrets opens a keyring.
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
		panic("seal: " + err.Error()) // only for an n beyond 255 hashes; every n here is a constant
	}
	return out
}
