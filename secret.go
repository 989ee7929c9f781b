package flotilla

import (
	"crypto/rand"
	"fmt"
	"log/slog"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// Secret is the 32 random bytes that define a cluster: everybody who has it can be a member. It
// seals the replicated state, the log and the snapshots. It is also the seed of the certificate
// authority with which nodes authenticate each other. It is never stored.
//
// Nothing that formats a Secret prints it: String, every fmt verb, JSON and slog give a
// fingerprint. Only Encode returns its text form. The zero Secret is not valid.
type Secret struct{ raw seal.Secret }

// NewSecret returns a new random secret. Use Encode to write it down.
func NewSecret() Secret {
	var s Secret
	rand.Read(s.raw[:]) // never returns an error: it crashes the program instead
	return s
}

// ParseSecret reads the text form of a secret: "flt1_", 52 letters and digits, and a checksum of 7
// more. Upper and lower case are both accepted, and space around it is ignored. An error says what
// is wrong and never repeats the text.
func ParseSecret(text string) (Secret, error) {
	raw, err := seal.ParseSecret(text)
	if err != nil {
		return Secret{}, fmt.Errorf("flotilla: %w", err)
	}
	return Secret{raw}, nil
}

// Encode returns the text form that ParseSecret reads. It is the secret itself: show it only to its
// owner.
func (s Secret) Encode() string { return s.raw.Encode() }

// IsZero reports whether s is the zero Secret, which is not valid.
func (s Secret) IsZero() bool { return s == Secret{} }

// String returns a fingerprint of the secret. It is the same on every node, and the secret cannot
// be derived from it.
func (s Secret) String() string {
	if s.IsZero() {
		return "secret(none)"
	}
	return "secret(" + s.raw.ID().String() + ")"
}

// Format prints the fingerprint for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalText returns the fingerprint, so that no encoder writes a secret by accident.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns the fingerprint.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
