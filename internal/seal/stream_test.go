package seal

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/nacl/secretbox"
)

const testChunk = 32

// sealStream returns plain as a sealed stream with chunks of this size.
func sealStream(t testing.TB, k *Keyring, s Secret, plain []byte, chunk int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := newWriter(&out, k, wrap(t, k, s), chunk)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write(plain); err != nil || n != len(plain) {
		t.Fatal(n, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// openStream reads a whole stream.
func openStream(sealed []byte, chunk int, secrets ...Secret) ([]byte, error) {
	r, err := newReader(bytes.NewReader(sealed), chunk, secrets...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// numbers returns n bytes in which every chunk differs.
func numbers(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + i>>8 + i>>16)
	}
	return b
}

func TestStream(t *testing.T) {
	k, s := NewKeyring().Rotate(), secretOf(1)
	for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 3*chunkSize + 5, 1 << 20} {
		plain := numbers(n)
		var sealed bytes.Buffer
		wrapped := wrap(t, k, secretOf(2), s)
		w, err := NewWriter(&sealed, k, wrapped)
		if err != nil {
			t.Fatal(err)
		}
		for piece := range slices.Chunk(plain, 1000) {
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := NewReader(iotest.HalfReader(&sealed), secretOf(3), s)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(r, plain); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if diff := cmp.Diff(k.IDs(), r.Keyring().IDs()); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(wrapped, r.Wrapped()); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestStreamsOfOneTextDiffer(t *testing.T) {
	k, s := NewKeyring(), secretOf(1)
	var a, b bytes.Buffer
	wrapped := wrap(t, k, s)
	for _, out := range []*bytes.Buffer{&a, &b} {
		w, err := NewWriter(out, k, wrapped)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("text"))
		w.Close()
	}
	tail := len("text") + secretbox.Overhead
	if bytes.Equal(a.Bytes()[a.Len()-tail:], b.Bytes()[b.Len()-tail:]) {
		t.Fatal("two streams have one key")
	}
}

func TestStreamDamage(t *testing.T) {
	k, s := NewKeyring(), secretOf(1)
	for _, n := range []int{0, 1, testChunk, 3*testChunk + 7} {
		sealed := sealStream(t, k, s, numbers(n), testChunk)
		open := func(b []byte) error { _, err := openStream(b, testChunk, s); return err }
		if err := open(sealed); err != nil {
			t.Fatal(err)
		}
		flips(t, sealed, open)
		cuts(t, sealed, open)
	}
}

func TestStreamChunks(t *testing.T) {
	k, s := NewKeyring(), secretOf(1)
	split := func(sealed []byte, chunks int) (parts [][]byte) {
		size := testChunk + secretbox.Overhead
		head := len(sealed) - chunks*size
		return append([][]byte{sealed[:head]}, slices.Collect(slices.Chunk(sealed[head:], size))...)
	}
	a := split(sealStream(t, k, s, numbers(4*testChunk), testChunk), 4)
	b := split(sealStream(t, k, s, numbers(4*testChunk), testChunk), 4)
	empty := sealStream(t, k, s, nil, testChunk)
	head := a[0]
	for _, c := range []struct {
		name  string
		parts [][]byte
		want  error
	}{
		{"whole", [][]byte{head, a[1], a[2], a[3], a[4]}, nil},
		{"no chunk", [][]byte{head}, ErrTampered},
		{"last chunk cut off", [][]byte{head, a[1], a[2], a[3]}, ErrTampered},
		{"only the last chunk", [][]byte{head, a[4]}, ErrTampered},
		{"first chunk left out", [][]byte{head, a[2], a[3], a[4]}, ErrTampered},
		{"chunk left out", [][]byte{head, a[1], a[3], a[4]}, ErrTampered},
		{"swapped", [][]byte{head, a[2], a[1], a[3], a[4]}, ErrTampered},
		{"repeated", [][]byte{head, a[1], a[1], a[2], a[3], a[4]}, ErrTampered},
		{"last repeated", [][]byte{head, a[1], a[2], a[3], a[4], a[4]}, ErrTampered},
		{"last in the middle", [][]byte{head, a[1], a[2], a[4], a[3]}, ErrTampered},
		{"from another stream", [][]byte{head, a[1], b[2], a[3], a[4]}, ErrTampered},
		{"header of another stream", [][]byte{b[0], a[1], a[2], a[3], a[4]}, ErrTampered},
		{"a byte more", [][]byte{head, a[1], a[2], a[3], a[4], {0}}, ErrTampered},
		{"an empty end more", [][]byte{head, a[1], a[2], a[3], a[4], empty[len(empty)-secretbox.Overhead:]}, ErrTampered},
		{"two streams", [][]byte{head, a[1], a[2], a[3], a[4], empty}, ErrTampered},
		{"nothing", nil, ErrFormat},
		{"half a header", [][]byte{head[:len(head)/2]}, ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := openStream(bytes.Join(c.parts, nil), testChunk, s)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if !bytes.HasPrefix(numbers(4*testChunk), got) {
				t.Fatal("bytes that were not sealed at this place came out")
			}
		})
	}
}

// TestStreamHasOneForm checks that a text has only one division into chunks. An empty last chunk
// after others is refused, even if it was made with the key.
func TestStreamHasOneForm(t *testing.T) {
	k, s := NewKeyring(), secretOf(1)
	var out bytes.Buffer
	w, err := newWriter(&out, k, wrap(t, k, s), testChunk)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(numbers(testChunk))
	if err := w.flush(false); err != nil {
		t.Fatal(err)
	}
	if err := w.flush(true); err != nil {
		t.Fatal(err)
	}
	if _, err := openStream(out.Bytes(), testChunk, s); !errors.Is(err, ErrTampered) {
		t.Fatal(err)
	}
}

func TestStreamErrorsStay(t *testing.T) {
	k, s := NewKeyring(), secretOf(1)
	sealed := sealStream(t, k, s, numbers(3*testChunk), testChunk)
	broken := errors.New("broken disk")

	r, err := newReader(
		io.MultiReader(bytes.NewReader(sealed[:len(sealed)-20]), iotest.ErrReader(broken)),
		testChunk,
		s,
	)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := io.ReadAll(r); !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	if _, err := newReader(iotest.ErrReader(broken), testChunk, s); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	sealed[len(sealed)-1]++
	if r, err = newReader(bytes.NewReader(sealed), testChunk, s); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := io.ReadAll(r); !errors.Is(err, ErrTampered) {
			t.Fatal(err)
		}
	}
}

// failing is a writer that fails after a number of calls.
type failing struct{ calls int }

var errFull = errors.New("disk is full")

func (f *failing) Write(p []byte) (int, error) {
	if f.calls--; f.calls < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriterErrors(t *testing.T) {
	k, s := NewKeyring(), secretOf(1)
	wrapped := wrap(t, k, s)
	if _, err := NewWriter(&failing{0}, k, wrapped); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	w, err := newWriter(&failing{2}, k, wrapped, testChunk)
	if err != nil {
		t.Fatal(err)
	}
	// The first chunk is written when the second is full, so that the writer knows that it is not
	// the last.
	if n, err := w.Write(make([]byte, 3*testChunk)); n != 2*testChunk || !errors.Is(err, errFull) {
		t.Fatal(n, err)
	}
	if _, err := w.Write([]byte{1}); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	if w, err = newWriter(&failing{1}, k, wrapped, testChunk); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	if w, err = newWriter(&failing{2}, k, wrapped, testChunk); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte{1}); err == nil || !strings.Contains(err.Error(), "sealed stream is closed") {
		t.Fatal("a closed writer writes:", err)
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "sealed stream is closed") {
		t.Fatal("a closed writer closes:", err)
	}
	for name, other := range map[string][]byte{
		"another keyring": wrap(t, NewKeyring(), s), "an older keyring": wrap(t, k.Rotate(), s), "nothing": nil, "cut": wrapped[:40],
	} {
		if _, err := NewWriter(io.Discard, k, other); err == nil ||
			!strings.Contains(err.Error(), "is not that of the keyring that seals") {
			t.Fatalf("%s is taken for the keyring: %v", name, err)
		}
	}
}

func TestReaderWrongSecret(t *testing.T) {
	k, s := NewKeyring(), secretOf(1)
	_, err := openStream(sealStream(t, k, s, nil, testChunk), testChunk, secretOf(2))
	got, _ := errors.AsType[*WrongSecretError](err)
	if diff := cmp.Diff(&WrongSecretError{Want: []KeyID{s.ID()}, Have: []KeyID{secretOf(2).ID()}}, got); diff != "" {
		t.Fatal(diff)
	}
}
