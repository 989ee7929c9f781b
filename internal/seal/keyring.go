package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"golang.org/x/crypto/nacl/secretbox"
)

const (
	maxKeys    = 64
	maxSecrets = 16
	maxWrapped = 64 << 10

	wrapVersion = 1
	wrapHead    = 3 // version, number of secrets, number of data keys
)

// dataKey is one key of a keyring with all that is derived from it. It is immutable.
type dataKey struct {
	id     KeyID
	raw    [keySize]byte
	record [keySize]byte // of envelopes
	stream []byte        // makes a key per stream
	wrap   []byte        // authenticates a wrapped keyring
}

func newDataKey(raw []byte) *dataKey {
	return &dataKey{
		id:     KeyID(derive(raw, "data/id", len(KeyID{}))),
		raw:    [keySize]byte(raw),
		record: [keySize]byte(derive(raw, "data/record", keySize)),
		stream: derive(raw, "data/stream", keySize),
		wrap:   derive(raw, "data/wrap", keySize),
	}
}

// Keyring holds the data keys of a cluster. The first is the active one, which seals. All of them
// open. A Keyring is immutable, and several goroutines may use it at once. The zero Keyring has no
// key and may not be used: take one from NewKeyring, Unwrap or NewReader.
//
// The ID of a key is derived from the key and never stored, so no key can pass for another.
type Keyring struct {
	// at least one; pointers, so that fmt shows no key even where it does not call Format
	keys []*dataKey
}

// NewKeyring returns a keyring with one new random data key.
func NewKeyring() *Keyring { return &Keyring{keys: []*dataKey{randomKey()}} }

func randomKey() *dataKey {
	var raw [keySize]byte
	rand.Read(raw[:])
	return newDataKey(raw[:])
}

// ID returns the ID of the active data key.
func (k *Keyring) ID() KeyID { return k.keys[0].id }

// IDs returns the IDs of all data keys, the active one first.
func (k *Keyring) IDs() []KeyID {
	ids := make([]KeyID, len(k.keys))
	for i, key := range k.keys {
		ids[i] = key.id
	}
	return ids
}

// Rotate returns a keyring with a new random data key as the active one, which opens all that k
// opens. Wrap refuses a keyring of more than 64 keys: Forget the old ones.
func (k *Keyring) Rotate() *Keyring {
	return &Keyring{keys: append([]*dataKey{randomKey()}, k.keys...)}
}

// Forget returns a keyring with the active data key of k alone. It cannot open what the other keys
// have sealed.
func (k *Keyring) Forget() *Keyring { return &Keyring{keys: k.keys[:1:1]} }

// find returns the key that id names, or nil.
func (k *Keyring) find(id KeyID) *dataKey {
	for _, key := range k.keys {
		if key.id == id {
			return key
		}
	}
	return nil
}

// String names the active data key.
func (k Keyring) String() string {
	if len(k.keys) == 0 {
		return "keyring(none)"
	}
	return "keyring(" + k.ID().String() + ")"
}

// Format prints String for every verb.
func (k Keyring) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// LogValue gives String.
func (k Keyring) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Wrap returns the keyring in a form that may be stored and sent, and that any one of the secrets
// opens. A secret given twice counts once. It fails without a secret, with more than 16 of them,
// and with more than 64 data keys.
//
// The form is: a version byte, the number of secrets, the number of data keys; for each secret its
// ID, a random nonce and the secretbox of the data keys; at last an HMAC-SHA256 over all of that,
// under a key derived from the active data key. So a reader with one secret also notices a change
// to the part of another secret.
func (k *Keyring) Wrap(secrets ...Secret) ([]byte, error) {
	var uniq []Secret
	for _, s := range secrets {
		if !slices.Contains(uniq, s) {
			uniq = append(uniq, s)
		}
	}
	switch {
	case len(uniq) == 0:
		return nil, errors.New("a keyring cannot be wrapped without a secret")
	case len(uniq) > maxSecrets:
		return nil, fmt.Errorf("a keyring can be wrapped for %d secrets at most, these are %d", maxSecrets, len(uniq))
	case len(k.keys) > maxKeys:
		return nil, fmt.Errorf("a keyring can hold %d data keys at most, this one has %d", maxKeys, len(k.keys))
	}
	plain := make([]byte, 0, len(k.keys)*keySize)
	for _, key := range k.keys {
		plain = append(plain, key.raw[:]...)
	}
	out := []byte{wrapVersion, byte(len(uniq)), byte(len(k.keys))}
	for _, s := range uniq {
		var nonce [nonceSize]byte
		rand.Read(nonce[:])
		id := s.ID()
		out = append(out, id[:]...)
		out = append(out, nonce[:]...)
		out = secretbox.Seal(out, plain, &nonce, s.wrapping())
	}
	return append(out, k.wrapMAC(out)...), nil
}

func (k *Keyring) wrapMAC(body []byte) []byte {
	mac := hmac.New(sha256.New, k.keys[0].wrap)
	mac.Write(body)
	return mac.Sum(nil)
}

// wrapped reports whether k is the keyring in w. It needs no secret for that.
func (k *Keyring) wrapped(w []byte) bool {
	n := len(w) - sha256.Size
	return n >= 0 && len(w) <= maxWrapped && hmac.Equal(w[n:], k.wrapMAC(w[:n]))
}

// IsIn reports whether a wrapped keyring is k. It needs no secret for that.
func (k *Keyring) IsIn(wrapped []byte) bool {
	_, err := entries(wrapped)
	return err == nil && int(wrapped[2]) == len(k.keys) && k.wrapped(wrapped)
}

// Unwrap opens what Wrap returned, with the first of the secrets that it is wrapped for. The error
// is a *WrongSecretError if there is none. Otherwise it wraps ErrFormat or ErrTampered.
func Unwrap(wrapped []byte, secrets ...Secret) (*Keyring, error) {
	parts, err := entries(wrapped)
	if err != nil {
		return nil, err
	}
	var have, want []KeyID
	for _, s := range secrets {
		id := s.ID()
		for _, p := range parts {
			if KeyID(p[:len(id)]) == id {
				return open(wrapped, p[len(id):], s)
			}
		}
		have = append(have, id)
	}
	for _, p := range parts {
		want = append(want, KeyID(p[:len(KeyID{})]))
	}
	return nil, &WrongSecretError{Want: want, Have: have}
}

// SecretsOf returns the IDs of the secrets that a keyring is wrapped for. It opens nothing. The
// error wraps ErrFormat.
func SecretsOf(wrapped []byte) ([]KeyID, error) {
	parts, err := entries(wrapped)
	if err != nil {
		return nil, err
	}
	var ids []KeyID
	for _, p := range parts {
		ids = append(ids, KeyID(p[:len(KeyID{})]))
	}
	return ids, nil
}

// open opens one part of a wrapped keyring with the secret that the part is for. The part is a
// nonce and a box.
func open(wrapped, part []byte, s Secret) (*Keyring, error) {
	plain, ok := secretbox.Open(nil, part[nonceSize:], (*[nonceSize]byte)(part[:nonceSize]), s.wrapping())
	if !ok {
		return nil, fmt.Errorf("%w: keyring", ErrTampered)
	}
	k := new(Keyring)
	for raw := range slices.Chunk(plain, keySize) {
		k.keys = append(k.keys, newDataKey(raw))
	}
	if !k.wrapped(wrapped) {
		return nil, fmt.Errorf("%w: keyring", ErrTampered)
	}
	return k, nil
}

// entries returns the parts of a wrapped keyring, one for each secret. All lengths must agree
// exactly.
func entries(wrapped []byte) ([][]byte, error) {
	if len(wrapped) < wrapHead || len(wrapped) > maxWrapped {
		return nil, fmt.Errorf("%w: a wrapped keyring of %d bytes", ErrFormat, len(wrapped))
	}
	if wrapped[0] != wrapVersion {
		return nil, fmt.Errorf("%w: a wrapped keyring of version %d", ErrFormat, wrapped[0])
	}
	secrets, keys := int(wrapped[1]), int(wrapped[2])
	size := len(KeyID{}) + nonceSize + secretbox.Overhead + keys*keySize
	if secrets == 0 || secrets > maxSecrets || keys == 0 || keys > maxKeys ||
		len(wrapped) != wrapHead+secrets*size+sha256.Size {
		return nil, fmt.Errorf("%w: a wrapped keyring of %d bytes for %d secrets with %d keys",
			ErrFormat, len(wrapped), secrets, keys)
	}
	return slices.Collect(slices.Chunk(wrapped[wrapHead:len(wrapped)-sha256.Size], size)), nil
}
