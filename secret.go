package flotilla

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

const secretPrefix = "flt1_"

var secretText = base32.StdEncoding.WithPadding(base32.NoPadding)

// Secret is the 32 random bytes that make a cluster: whoever has it is a member. It seals the replicated state, the log
// and the snapshots, and it is the seed of the certificate authority that nodes know one another by. It is never stored.
//
// Nothing that formats a Secret prints it: String, every fmt verb, JSON and slog give a fingerprint. Encode is the only
// way to its text form. The zero Secret is not valid.
type Secret struct{ raw seal.Secret }

// NewSecret returns a new random secret. Use Encode to write it down.
func NewSecret() Secret {
	var s Secret
	rand.Read(s.raw[:]) // never fails: it crashes the program rather than return few bytes
	return s
}

// ParseSecret reads the text form of a secret: "flt1_", 52 letters and digits, and a checksum of 7 more, upper or lower case,
// with space around it allowed. An error says what is wrong and never repeats the text.
func ParseSecret(text string) (Secret, error) {
	var s Secret
	text = strings.TrimSpace(text)
	body, ok := strings.CutPrefix(strings.ToLower(text), secretPrefix)
	if !ok {
		return s, errors.New("flotilla: a secret begins with " + secretPrefix + "; make one with flotilla.NewSecret")
	}
	want := secretText.EncodedLen(len(s.raw)) + secretText.EncodedLen(crc32.Size)
	if len(body) != want {
		return s, fmt.Errorf("flotilla: a secret has %d characters after %s, this text has %d; was it cut short?", want, secretPrefix, len(body))
	}
	head, tail := body[:secretText.EncodedLen(len(s.raw))], body[secretText.EncodedLen(len(s.raw)):]
	raw, err1 := secretText.DecodeString(strings.ToUpper(head))
	_, err2 := secretText.DecodeString(strings.ToUpper(tail))
	if err1 != nil || err2 != nil {
		return s, errors.New("flotilla: a secret has only the letters a to z and the digits 2 to 7 after " + secretPrefix)
	}
	copy(s.raw[:], raw)
	if s.Encode() != secretPrefix+body {
		return Secret{}, errors.New("flotilla: the checksum of this secret is wrong; copy it again, whole")
	}
	return s, nil
}

// Encode returns the text form that ParseSecret reads. It is the secret itself: print it nowhere but to its owner.
func (s Secret) Encode() string {
	sum := crc32.Checksum(s.raw[:], crc32.MakeTable(crc32.Castagnoli))
	tail := []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}
	return secretPrefix + strings.ToLower(secretText.EncodeToString(s.raw[:])+secretText.EncodeToString(tail))
}

// IsZero reports whether s is the zero Secret, which is not valid.
func (s Secret) IsZero() bool { return s == Secret{} }

// String returns a fingerprint of the secret, the same on every node, from which the secret cannot be found.
func (s Secret) String() string {
	if s.IsZero() {
		return "secret(none)"
	}
	return "secret(" + s.raw.ID().String() + ")"
}

// Format prints the fingerprint whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalText gives the fingerprint, so that no encoder writes a secret by accident.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue gives the fingerprint.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
