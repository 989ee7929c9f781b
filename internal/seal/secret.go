package seal

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is the operator's secret, 32 random bytes. Formatting or encoding it does not show them,
// with two exceptions where fmt does not call Format: the verbs %p and %w, which vet refuses, and
// an unexported field of a struct that is printed. In such a field keep a pointer to it.
type Secret [32]byte

// ID returns the public ID of s.
func (s Secret) ID() KeyID { return KeyID(derive(s[:], "kid", len(KeyID{}))) }

// CASeed returns the seed of the Ed25519 key of the cluster's internal certificate authority.
func (s Secret) CASeed() [32]byte { return [32]byte(derive(s[:], "ca", 32)) }

// wrapping returns the key that wraps the keyring.
func (s Secret) wrapping() *[keySize]byte { return (*[keySize]byte)(derive(s[:], "kek", keySize)) }

// String returns the ID of s in words.
func (s Secret) String() string { return "secret(" + s.ID().String() + ")" }

// Format prints String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// LogValue gives String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText gives String, so that no encoder writes a secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
