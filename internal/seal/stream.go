package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/nacl/secretbox"
)

// A sealed stream has a header and chunks. The header is: "FS", the version 1, the length of the
// wrapped keyring (4 bytes, big-endian), the wrapped keyring, 32 random bytes. Every chunk is the
// secretbox of 64 KiB, the last one of 1 byte to 64 KiB. Only an empty stream has an empty last
// chunk.
//
// The key is the HMAC-SHA256 of the whole header, under a key derived from the active data key. The
// nonce is 16 zero bytes, a counter of 7 bytes, and a byte that is 1 for the last chunk. So no
// chunk and no byte of the header can be changed, left out, repeated, moved or added. This is the
// construction STREAM of Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption
// and its Nonce-Reuse Misuse-Resistance", 2015.
const (
	streamMagic   = "FS"
	streamVersion = 1
	streamHead    = len(streamMagic) + 1 + 4
	streamSalt    = 32

	chunkSize = 64 << 10
)

// streamKey returns the key of the stream with this header.
func (k *Keyring) streamKey(header []byte) *[keySize]byte {
	mac := hmac.New(sha256.New, k.keys[0].stream)
	mac.Write(header)
	return (*[keySize]byte)(mac.Sum(nil))
}

// chunkNonce returns the nonce of chunk i. Chunks of 64 KiB under a counter of 7 bytes make 2^72
// bytes: it does not wrap.
func chunkNonce(i uint64, last bool) *[nonceSize]byte {
	nonce := new([nonceSize]byte)
	binary.BigEndian.PutUint64(nonce[16:], i<<8)
	if last {
		nonce[23] = 1
	}
	return nonce
}

// writer seals a stream. It is not safe for use by several goroutines.
type writer struct {
	w     io.Writer
	key   *[keySize]byte
	chunk int    // bytes of plain text in a chunk
	next  uint64 // number of the next chunk
	plain []byte // not sealed yet; at most a chunk
	box   []byte // room for a sealed chunk
	err   error  // sticky; errClosed after Close
}

var errClosed = errors.New("sealed stream is closed")

// NewWriter returns a writer that seals what is written to it and writes the result to w. wrapped
// must be k in the form that k.Wrap returned. One of its secrets is all that a reader of the stream
// needs. The header is written at once. Close writes the rest and the end; it does not close w. A
// stream that was not closed cannot be read to its end. A writer that is not closed leaves nothing
// to clean up.
func NewWriter(w io.Writer, k *Keyring, wrapped []byte) (io.WriteCloser, error) {
	return newWriter(w, k, wrapped, chunkSize)
}

func newWriter(w io.Writer, k *Keyring, wrapped []byte, chunk int) (*writer, error) {
	if !k.wrapped(wrapped) {
		return nil, errors.New("the wrapped keyring is not that of the keyring that seals")
	}
	header := append([]byte(streamMagic), streamVersion)
	header = binary.BigEndian.AppendUint32(header, uint32(len(wrapped)))
	header = append(header, wrapped...)
	var random [streamSalt]byte
	rand.Read(random[:])
	header = append(header, random[:]...)
	if _, err := w.Write(header); err != nil {
		return nil, err
	}
	return &writer{w: w, key: k.streamKey(header), chunk: chunk}, nil
}

// Write seals p, now or later. After an error every call returns it.
func (w *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 && w.err == nil {
		// A full chunk waits for the next byte, because only then it is known not to be the last.
		if len(w.plain) == w.chunk {
			if w.err = w.flush(false); w.err != nil {
				break
			}
		}
		m := min(len(p), w.chunk-len(w.plain))
		w.plain = append(w.plain, p[:m]...)
		n, p = n+m, p[m:]
	}
	return n, w.err
}

// Close seals and writes the rest, and the end of the stream.
func (w *writer) Close() error {
	if w.err != nil {
		return w.err
	}
	err := w.flush(true)
	w.err, w.plain, w.box = errClosed, nil, nil
	return err
}

// flush seals and writes a chunk.
func (w *writer) flush(last bool) error {
	w.box = secretbox.Seal(w.box[:0], w.plain, chunkNonce(w.next, last), w.key)
	w.next++
	w.plain = w.plain[:0]
	_, err := w.w.Write(w.box)
	return err
}

// Reader opens a sealed stream. It is not safe for use by several goroutines. It has no goroutine
// and needs no Close.
type Reader struct {
	r       io.Reader
	keyring *Keyring
	wrapped []byte
	key     *[keySize]byte
	chunk   int    // bytes of plain text in a chunk
	next    uint64 // number of the next chunk
	box     []byte // a sealed chunk and one byte more
	carry   int    // bytes of box that are filled: that one byte, of the next chunk
	room    []byte // for an opened chunk
	plain   []byte // the part of room that is not read yet
	err     error  // sticky, returned when plain is read
}

// NewReader reads the header of a stream of NewWriter, and returns a reader of the content. The
// stream ends where r ends. The error is a *WrongSecretError if none of the secrets opens it.
// Otherwise it wraps ErrFormat, ErrTampered or the error of r.
func NewReader(r io.Reader, secrets ...Secret) (*Reader, error) {
	return newReader(r, chunkSize, secrets...)
}

func newReader(r io.Reader, chunk int, secrets ...Secret) (*Reader, error) {
	header := make([]byte, streamHead)
	if err := readFull(r, header); err != nil {
		return nil, err
	}
	if string(header[:len(streamMagic)]) != streamMagic {
		return nil, fmt.Errorf("%w: no sealed stream", ErrFormat)
	}
	if v := header[len(streamMagic)]; v != streamVersion {
		return nil, fmt.Errorf("%w: a stream of version %d", ErrFormat, v)
	}
	n := binary.BigEndian.Uint32(header[streamHead-4:])
	if n > maxWrapped {
		return nil, fmt.Errorf("%w: a wrapped keyring of %d bytes", ErrFormat, n)
	}
	header = append(header, make([]byte, int(n)+streamSalt)...)
	if err := readFull(r, header[streamHead:]); err != nil {
		return nil, err
	}
	wrapped := header[streamHead : len(header)-streamSalt : len(header)-streamSalt]
	k, err := Unwrap(wrapped, secrets...)
	if err != nil {
		return nil, err
	}
	return &Reader{r: r, keyring: k, wrapped: wrapped, key: k.streamKey(header), chunk: chunk}, nil
}

// readFull fills p with a part of the header.
func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: the stream ends within its header", ErrFormat)
	}
	return err
}

// Keyring returns the keyring that came with the stream.
func (r *Reader) Keyring() *Keyring { return r.keyring }

// Wrapped returns the keyring as it came with the stream, in the form of Keyring.Wrap. The caller
// may not change it.
func (r *Reader) Wrapped() []byte { return r.wrapped }

// Read returns what was written to the stream, and never a byte that is not authentic. The error is
// io.EOF only at an authentic end. It wraps ErrTampered for a stream that was changed, cut or
// extended, and is otherwise the error of the underlying reader. A cut is noticed only at the end:
// the bytes before it are authentic, but may not be all.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.plain) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// fill reads and opens one chunk. It sets plain, err or both.
func (r *Reader) fill() {
	full := r.chunk + secretbox.Overhead
	if r.box == nil {
		r.box = make([]byte, full+1)
		r.room = make([]byte, 0, r.chunk)
	}
	n, err := io.ReadFull(r.r, r.box[r.carry:])
	n += r.carry
	// One byte behind the chunk shows whether the chunk is the last.
	last := false
	switch err {
	case nil:
		n = full
	case io.EOF, io.ErrUnexpectedEOF:
		last = true
	default:
		r.err = err
		return
	}
	plain, ok := secretbox.Open(r.room, r.box[:n], chunkNonce(r.next, last), r.key)
	if !ok || len(plain) == 0 && r.next > 0 {
		r.err = fmt.Errorf("%w: stream, at chunk %d", ErrTampered, r.next)
		return
	}
	r.plain = plain
	r.next++
	if last {
		r.err, r.box = io.EOF, nil
		return
	}
	r.box[0], r.carry = r.box[full], 1
}
