package seal

import (
	"crypto/rand"
	"fmt"
	"slices"

	"golang.org/x/crypto/nacl/secretbox"
)

const (
	magic        = 'F'
	version      = 1
	envelopeHead = 2 + len(KeyID{}) + nonceSize
)

// Overhead is the number of bytes that Keyring.Seal adds.
const Overhead = envelopeHead + secretbox.Overhead

// Seal returns an envelope with plain in it. Its form is: 'F', the version 1, the ID of the active
// data key, a random nonce of 24 bytes, and the secretbox.
func (k *Keyring) Seal(plain []byte) []byte { return k.AppendSealed(nil, plain) }

// AppendSealed appends the envelope that Seal returns to out.
func (k *Keyring) AppendSealed(out, plain []byte) []byte {
	key := k.keys[0]
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	out = slices.Grow(out, Overhead+len(plain))
	out = append(out, magic, version)
	out = append(out, key.id[:]...)
	out = append(out, nonce[:]...)
	return secretbox.Seal(out, plain, &nonce, &key.record)
}

// IsSealedBy reports whether an envelope names the data key id. It opens nothing.
func IsSealedBy(sealed []byte, id KeyID) bool {
	key, ok := keyOf(sealed)
	return ok && key == id
}

// keyOf returns the ID of the data key that an envelope names.
func keyOf(sealed []byte) (id KeyID, ok bool) {
	if len(sealed) < Overhead || sealed[0] != magic || sealed[1] != version {
		return id, false
	}
	return KeyID(sealed[2 : 2+len(id)]), true
}

// Open returns a copy of what is in an envelope. The error is an *UnknownKeyError if the key is not
// in the keyring. Otherwise it wraps ErrFormat or ErrTampered.
func (k *Keyring) Open(sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || sealed[0] != magic {
		return nil, fmt.Errorf("%w: no envelope", ErrFormat)
	}
	if sealed[1] != version {
		return nil, fmt.Errorf("%w: an envelope of version %d", ErrFormat, sealed[1])
	}
	id := KeyID(sealed[2 : 2+len(KeyID{})])
	key := k.find(id)
	if key == nil {
		return nil, &UnknownKeyError{ID: id}
	}
	nonce := (*[nonceSize]byte)(sealed[envelopeHead-nonceSize : envelopeHead])
	plain, ok := secretbox.Open(make([]byte, 0, len(sealed)-Overhead), sealed[envelopeHead:], nonce, &key.record)
	if !ok {
		return nil, fmt.Errorf("%w: envelope", ErrTampered)
	}
	return plain, nil
}
