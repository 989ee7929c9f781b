package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// This is the server's side of RFC 6455, for short messages of text. There are no extensions.

// The kinds of frames (RFC 6455, section 5.2).
const (
	kindMore  = 0x0 // continues a message
	kindText  = 0x1
	kindClose = 0x8
	kindPing  = 0x9
	kindPong  = 0xA
)

// Why a connection is closed (section 7.4.1).
const (
	goingAway     = 1001
	protocolError = 1002
	notSupported  = 1003
	noText        = 1007
	tooBig        = 1009
)

const (
	maxMessage = 4 << 10          // bytes of a message from a visitor
	writeTime  = 10 * time.Second // until a visitor who reads nothing is given up
	endTime    = 2 * time.Second  // until the visitor's goodbye
)

// badFrame is the error of a visitor who does not keep to the protocol.
type badFrame struct {
	code int
	what string
}

func (e *badFrame) Error() string { return e.what }

// socket is an open WebSocket. One goroutine reads. Any may write: each frame is one call of Write,
// and package net lets one call finish before the next.
type socket struct {
	conn  net.Conn
	in    *bufio.Reader
	ended sync.Once // by us or by the visitor: nothing is sent after a goodbye
}

// upgrade answers the request that opens a WebSocket (section 4.2). After an error nothing has been
// answered.
func upgrade(w http.ResponseWriter, r *http.Request) (*socket, error) {
	key := r.Header.Get("Sec-WebSocket-Key")
	nonce, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(nonce) != 16 || !hasToken(r.Header, "Connection", "upgrade") ||
		!hasToken(r.Header, "Upgrade", "websocket") || r.Header.Get("Sec-WebSocket-Version") != "13" {
		return nil, errors.New("this is for WebSockets, version 13")
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, in: rw.Reader}
	conn.SetDeadline(time.Time{}) // the server's
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if err := s.send([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")); err != nil {
		conn.Close() // so the first read fails
	}
	return s, nil
}

// hasToken reports whether a header has a word in one of its lists.
func hasToken(h http.Header, name, want string) bool {
	for _, list := range h.Values(name) {
		for word := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(word), want) {
				return true
			}
		}
	}
	return false
}

// send writes all of b in time.
func (s *socket) send(b []byte) error {
	s.conn.SetWriteDeadline(time.Now().Add(writeTime))
	_, err := s.conn.Write(b)
	return err
}

// write sends a message of text.
func (s *socket) write(text []byte) error { return s.send(appendFrame(nil, kindText, text)) }

func (s *socket) writeJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.write(b)
}

// goodbye says that no more comes, and lets read wait no longer than endTime for the answer.
func (s *socket) goodbye(code int) {
	s.end(binary.BigEndian.AppendUint16(nil, uint16(code)))
}

// end sends the frame that ends the connection, once.
func (s *socket) end(body []byte) {
	s.ended.Do(func() {
		s.conn.SetReadDeadline(time.Now().Add(endTime))
		s.send(appendFrame(nil, kindClose, body))
	})
}

func (s *socket) close() { s.conn.Close() }

// read returns the next message. Before that it answers what the visitor asks in between. After an
// error, which is io.EOF when the visitor has said goodbye, nothing more can be read.
func (s *socket) read() (string, error) {
	text, err := s.message()
	if bad := new(badFrame); errors.As(err, &bad) {
		s.goodbye(bad.code)
	}
	return text, err
}

func (s *socket) message() (string, error) {
	var text []byte
	begun := false
	for {
		f, err := readFrame(s.in)
		if err != nil {
			return "", err
		}
		switch f.kind {
		case kindPing:
			if err := s.send(appendFrame(nil, kindPong, f.body)); err != nil {
				return "", err
			}
			continue
		case kindPong:
			continue
		case kindClose:
			s.end(f.body[:min(len(f.body), 2)]) // the same code
			return "", io.EOF
		case kindText, kindMore:
			if begun == (f.kind == kindText) {
				return "", &badFrame{protocolError, "a message begins within another, or goes on before it has begun"}
			}
		default:
			return "", &badFrame{notSupported, fmt.Sprintf("a frame of kind %d; only text is taken", f.kind)}
		}
		begun = true
		if text = append(text, f.body...); len(text) > maxMessage {
			return "", &badFrame{tooBig, fmt.Sprintf("a message of more than %d bytes", maxMessage)}
		}
		if f.final {
			if !utf8.Valid(text) {
				return "", &badFrame{noText, "a message that is not UTF-8"}
			}
			return string(text), nil
		}
	}
}

// frame is a frame from a visitor.
type frame struct {
	kind  byte
	final bool // no kindMore follows
	body  []byte
}

// readFrame reads a frame of a client (section 5.2). It never takes more memory than a message may.
func readFrame(r io.Reader) (frame, error) {
	var head [14]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return frame{}, err
	}
	f := frame{kind: head[0] & 0x0F, final: head[0]&0x80 != 0}
	size, more := uint64(head[1]&0x7F), 4 // the mask
	switch {
	case head[0]&0x70 != 0:
		return f, &badFrame{protocolError, "a frame of an extension that nobody has agreed on"}
	case head[1]&0x80 == 0:
		return f, &badFrame{protocolError, "a client's frame is masked"}
	case f.kind >= kindClose && (!f.final || size > 125):
		return f, &badFrame{protocolError, "a control frame is short, and whole"}
	case size == 126:
		more += 2
	case size == 127:
		more += 8
	}
	if _, err := io.ReadFull(r, head[2:2+more]); err != nil {
		return f, unexpected(err)
	}
	switch more {
	case 6:
		size = uint64(binary.BigEndian.Uint16(head[2:]))
	case 12:
		size = binary.BigEndian.Uint64(head[2:])
	}
	if size > maxMessage {
		return f, &badFrame{tooBig, fmt.Sprintf("a frame of %d bytes, the limit is %d", size, maxMessage)}
	}
	f.body = make([]byte, size)
	if _, err := io.ReadFull(r, f.body); err != nil {
		return f, unexpected(err)
	}
	mask(f.body, head[more-2:more+2])
	return f, nil
}

// unexpected is the error of a frame that is cut off.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// mask masks or unmasks a body (section 5.3).
func mask(body, key []byte) {
	for i := range body {
		body[i] ^= key[i%4]
	}
}

// appendFrame appends a whole message of a server, which is not masked.
func appendFrame(b []byte, kind byte, body []byte) []byte {
	b = append(b, 0x80|kind)
	switch n := len(body); {
	case n < 126:
		b = append(b, byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, body...)
}
