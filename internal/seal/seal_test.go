package seal

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/nacl/secretbox"
)

// secretOf returns the secret whose bytes are all b.
func secretOf(b byte) Secret { return Secret(bytes.Repeat([]byte{b}, len(Secret{}))) }

func wrap(t testing.TB, k *Keyring, secrets ...Secret) []byte {
	t.Helper()
	w, err := k.Wrap(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// refused reports whether err is one of the errors for input that must not be opened.
func refused(err error) bool {
	var unknown *UnknownKeyError
	var wrong *WrongSecretError
	return errors.Is(err, ErrTampered) || errors.Is(err, ErrFormat) || errors.As(err, &unknown) ||
		errors.As(err, &wrong)
}

// flips calls f with every copy of b that differs in one bit.
func flips(t *testing.T, b []byte, f func(changed []byte) error) {
	t.Helper()
	for i := range len(b) * 8 {
		changed := bytes.Clone(b)
		changed[i/8] ^= 1 << (i % 8)
		if err := f(changed); !refused(err) {
			t.Fatalf("bit %d of byte %d of %d changed: %v", i%8, i/8, len(b), err)
		}
	}
}

// cuts calls f with every true prefix of b.
func cuts(t *testing.T, b []byte, f func(cut []byte) error) {
	t.Helper()
	for i := range b {
		if err := f(b[:i:i]); !refused(err) {
			t.Fatalf("cut to %d of %d bytes: %v", i, len(b), err)
		}
	}
}

// TestDerivation pins what must never change: clusters that run have keys and certificates made
// from it.
func TestDerivation(t *testing.T) {
	s := secretOf(7)
	seed := s.CASeed()
	got := []string{
		s.ID().String(),
		hex.EncodeToString(seed[:]),
		hex.EncodeToString(s.wrapping()[:]),
		newDataKey(s[:]).id.String(),
		hex.EncodeToString(newDataKey(s[:]).record[:]),
		hex.EncodeToString(newDataKey(s[:]).stream),
		hex.EncodeToString(newDataKey(s[:]).wrap),
	}
	want := []string{
		"cc1263a2c7844e92",
		"7f63d03b01f2fe453e2fb4d60ac52b20fa01795f94548286f489607a9f57e344",
		"fd5b9f4c40bd1f4302c42b1d63cd9f37d60cfdf36bf6a32870965a6509e1a3af",
		"98a109542662e535",
		"ecb35c2064504b11951e09b216abb3497fcce34ab0c1b21b6d64ed6b6bb8df17",
		"769e6192d68402fed3c294dafee6bfc03e169f589c8f5039dd6d8fab4908d5a8",
		"b90967b6c94ceaee74b6342117559fc5d8d7e09713704b230b5cc1518a0e4b2e",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if k := ed25519.NewKeyFromSeed(seed[:]); len(k) != ed25519.PrivateKeySize {
		t.Fatal("the seed is of no use")
	}
}

// TestGolden opens what an earlier build sealed.
func TestGolden(t *testing.T) {
	unhex := func(text string) []byte {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	k, err := Unwrap(unhex(goldenKeyring), secretOf(7))
	if err != nil {
		t.Fatal(err)
	}
	record, err := k.Open(unhex(goldenEnvelope))
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(bytes.NewReader(unhex(goldenStream)), secretOf(7))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a record", "a stream"}, []string{string(record), string(stream)}); diff != "" {
		t.Fatal(diff)
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	s := secretOf('Z')
	k := &Keyring{keys: []*dataKey{newDataKey(s[:])}}
	w, err := newWriter(io.Discard, k, wrap(t, k, s), chunkSize)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newReader(bytes.NewReader(sealStream(t, k, s, nil, chunkSize)), chunkSize, s)
	if err != nil {
		t.Fatal(err)
	}
	type box struct {
		S  Secret
		P  *Secret
		L  []Secret
		M  map[string]any
		K  *Keyring
		KV Keyring
	}
	b := box{s, &s, []Secret{s}, map[string]any{"s": s}, k, *k}
	var out strings.Builder
	for _, v := range []any{s, &s, b, &b, k, *k, struct{ k *Keyring }{k}, w, r} {
		// Not p and w: fmt calls no Formatter for these, and vet refuses both.
		for _, verb := range "vdsqxXoObcUtTeEfFgG" {
			for _, flag := range []string{"", "+", "#", "-20", "020", " "} {
				fmt.Fprintf(&out, "%"+flag+string(verb)+"\n", v)
			}
		}
		fmt.Fprintln(&out, v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
	}
	text := strings.ToLower(out.String())
	if !strings.Contains(text, s.String()) {
		t.Fatal("no ID is printed")
	}
	// Four bytes in a row, in every base; fewer appear by chance in addresses and IDs.
	for _, digits := range []string{"z", "5a", "0x5a", "90", "132", "0o132", "1011010", "'z'", "u+005a", "wlpa"} {
		for _, between := range []string{"", " ", ",", ", "} {
			if form := strings.Repeat(digits+between, 3) + digits; strings.Contains(text, form) {
				t.Fatalf("a secret is printed as %q", form)
			}
		}
	}
}

func TestEnvelope(t *testing.T) {
	k := NewKeyring()
	for _, n := range []int{0, 1, 63, 64, 65, 4096, 1 << 20} {
		plain := bytes.Repeat([]byte{1}, n)
		sealed := k.Seal(plain)
		if len(sealed) != n+Overhead {
			t.Fatalf("%d bytes became %d", n, len(sealed))
		}
		if bytes.Equal(sealed, k.Seal(plain)) {
			t.Fatal("two envelopes are equal")
		}
		got, err := k.Open(sealed)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(plain, got) {
			t.Fatalf("%d bytes came back changed", n)
		}
	}
	sealed := k.Seal([]byte("a short record"))
	open := func(b []byte) error { _, err := k.Open(b); return err }
	flips(t, sealed, open)
	cuts(t, sealed, open)
	if err := open(append(bytes.Clone(sealed), 0)); !errors.Is(err, ErrTampered) {
		t.Fatal(err)
	}
}

func TestOpenErrors(t *testing.T) {
	k, other := NewKeyring(), NewKeyring()
	good := k.Seal([]byte("x"))
	change := func(i int, b byte) []byte { c := bytes.Clone(good); c[i] = b; return c }
	posing := other.Seal([]byte("x"))
	copy(posing[2:10], good[2:10])
	for _, c := range []struct {
		name   string
		sealed []byte
		want   error
	}{
		{"nothing", nil, ErrFormat},
		{"short", good[:Overhead-1], ErrFormat},
		{"magic", change(0, 'G'), ErrFormat},
		{"version", change(1, 2), ErrFormat},
		{"nonce", change(10, good[10]+1), ErrTampered},
		{"box", change(len(good)-1, good[len(good)-1]+1), ErrTampered},
		{"another key under this ID", posing, ErrTampered},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := k.Open(c.sealed); !errors.Is(err, c.want) {
				t.Fatal(err)
			}
		})
	}
	_, err := k.Open(other.Seal(nil))
	got, _ := errors.AsType[*UnknownKeyError](err)
	if diff := cmp.Diff(&UnknownKeyError{ID: other.ID()}, got); diff != "" {
		t.Fatal(diff)
	}
	if !strings.Contains(err.Error(), other.ID().String()) {
		t.Fatal(err)
	}
}

func TestKeyring(t *testing.T) {
	old := NewKeyring()
	sealed := old.Seal([]byte("x"))
	both := old.Rotate()
	if diff := cmp.Diff([]KeyID{both.ID(), old.ID()}, both.IDs()); diff != "" {
		t.Fatal(diff)
	}
	if _, err := both.Open(sealed); err != nil {
		t.Fatal(err)
	}
	alone := both.Forget()
	if diff := cmp.Diff([]KeyID{both.ID()}, alone.IDs()); diff != "" {
		t.Fatal(diff)
	}
	if _, err := alone.Open(both.Seal(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Open(sealed); !refused(err) {
		t.Fatal(err)
	}
}

func TestWrap(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	k := NewKeyring().Rotate().Rotate()
	a, b, c, d := secretOf(1), secretOf(2), secretOf(3), secretOf(4)
	wrapped := wrap(t, k, a, b, a)
	for _, secrets := range [][]Secret{{a}, {b}, {a, b}, {c, b}, {c, d, a}} {
		got, err := Unwrap(wrapped, secrets...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(k.IDs(), got.IDs()); diff != "" {
			t.Fatal(diff)
		}
		if _, err := got.Open(k.Seal(nil)); err != nil {
			t.Fatal(err)
		}
		// A reader with one secret notices a change to the part of the other.
		open := func(w []byte) error { _, err := Unwrap(w, secrets...); return err }
		flips(t, wrapped, open)
		cuts(t, wrapped, open)
		if err := open(append(bytes.Clone(wrapped), 0)); !errors.Is(err, ErrFormat) {
			t.Fatal(err)
		}
	}
	for _, have := range [][]Secret{nil, {c}, {d, c}} {
		_, err := Unwrap(wrapped, have...)
		want := &WrongSecretError{Want: []KeyID{a.ID(), b.ID()}}
		for _, s := range have {
			want.Have = append(want.Have, s.ID())
		}
		got, _ := errors.AsType[*WrongSecretError](err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		for _, id := range append(want.Want, want.Have...) {
			if !strings.Contains(err.Error(), id.String()) {
				t.Fatalf("%q does not name %v", err, id)
			}
		}
	}
}

func TestWrapLimits(t *testing.T) {
	var secrets []Secret
	for i := range maxSecrets + 1 {
		secrets = append(secrets, secretOf(byte(i)))
	}
	k := NewKeyring()
	for len(k.keys) < maxKeys {
		k = k.Rotate()
	}
	wrapped := wrap(t, k, secrets[:maxSecrets]...)
	if len(wrapped) > maxWrapped {
		t.Fatalf("the largest has %d bytes", len(wrapped))
	}
	got, err := Unwrap(wrapped, secrets[maxSecrets-1])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(k.IDs(), got.IDs()); diff != "" {
		t.Fatal(diff)
	}
	for _, c := range []struct {
		want    string
		k       *Keyring
		secrets []Secret
	}{
		{"cannot be wrapped without a secret", k, nil},
		{"can be wrapped for 16 secrets at most", k, secrets},
		{"can hold 64 data keys at most", k.Rotate(), secrets[:1]},
	} {
		if _, err := c.k.Wrap(c.secrets...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Fatalf("the error is %v, want %q in it", err, c.want)
		}
	}
	if _, err := Unwrap(make([]byte, maxWrapped+1), secrets...); !errors.Is(err, ErrFormat) {
		t.Fatal(err)
	}
}

// TestPurposesDoNotMix opens each kind of box as another kind.
func TestPurposesDoNotMix(t *testing.T) {
	k, s := NewKeyring(), secretOf(1)
	key := k.keys[0]
	stream := sealStream(t, k, s, []byte("chunk"), chunkSize)
	box := stream[len(stream)-len("chunk")-secretbox.Overhead:]
	// A chunk as an envelope, with the nonce of the chunk.
	posing := append([]byte{magic, version}, key.id[:]...)
	posing = append(posing, chunkNonce(0, true)[:]...)
	posing = append(posing, box...)
	if _, err := k.Open(posing); !errors.Is(err, ErrTampered) {
		t.Fatal(err)
	}
	// A record that was sealed with that nonce, as a chunk.
	record := secretbox.Seal(nil, []byte("chunk"), chunkNonce(0, true), &key.record)
	posing = append(stream[:len(stream)-len(box):len(stream)-len(box)], record...)
	if _, err := openStream(posing, chunkSize, s); !errors.Is(err, ErrTampered) {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for name, b := range map[string][]byte{
		"raw": key.raw[:], "record": key.record[:], "stream": key.stream, "wrap": key.wrap, "secret": s[:], "kek": s.wrapping()[:],
	} {
		if other, dup := seen[string(b)]; dup {
			t.Fatalf("%s and %s are one key", name, other)
		}
		seen[string(b)] = name
	}
}
