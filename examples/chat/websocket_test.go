package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clientFrame returns a frame as a client sends it.
func clientFrame(kind byte, final bool, body string) string {
	b := appendFrame(nil, kind, []byte(body))
	if !final {
		b[0] &^= 0x80
	}
	b[1] |= 0x80
	head, key := b[:len(b)-len(body)], "key!"
	masked := []byte(body)
	mask(masked, []byte(key))
	return string(head) + key + string(masked)
}

// tape is a connection whose other side has said everything, and records the answers.
type tape struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (c *tape) Read(b []byte) (int, error)       { return c.in.Read(b) }
func (c *tape) Write(b []byte) (int, error)      { return c.out.Write(b) }
func (*tape) SetReadDeadline(time.Time) error    { return nil }
func (*tape) SetWriteDeadline(t time.Time) error { return nil }

func TestRead(t *testing.T) {
	text := func(s string) string { return clientFrame(kindText, true, s) }
	bye := func(code uint16) string {
		return string(appendFrame(nil, kindClose, binary.BigEndian.AppendUint16(nil, code)))
	}
	for _, test := range []struct {
		name, in string
		want     []string // messages
		says     string   // the error after them; empty: the end
		answers  string
	}{
		{"messages", text("a") + text("") + text(strings.Repeat("ä", 200)), []string{"a", "", strings.Repeat("ä", 200)}, "", ""},
		{"in parts", clientFrame(kindText, false, "a\xc3") + clientFrame(kindPing, true, "?") + clientFrame(kindMore, false, "\xa4") +
			clientFrame(kindPong, true, "") + clientFrame(kindMore, true, "b"), []string{"aäb"}, "", string(appendFrame(nil, kindPong, []byte("?")))},
		{"goodbye", text("a") + clientFrame(kindClose, true, "\x03\xe8thanks") + text("b"), []string{"a"}, "", bye(1000)},
		{"goodbye without a reason", clientFrame(kindClose, true, ""), nil, "", "\x88\x00"},
		{"the largest", text(strings.Repeat("a", maxMessage)), []string{strings.Repeat("a", maxMessage)}, "", ""},
		{"too large", text(strings.Repeat("a", maxMessage+1)), nil, "a frame of 4097 bytes", bye(tooBig)},
		{"huge", "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff0000", nil, "a frame of 18446744073709551615 bytes", bye(tooBig)},
		{"too large in parts", clientFrame(kindText, false, strings.Repeat("a", maxMessage)) + clientFrame(kindMore, true, "a"), nil, "a message of more than 4096 bytes", bye(tooBig)},
		{"no text", text("\xff"), nil, "not UTF-8", bye(noText)},
		{"binary", clientFrame(2, true, "a"), nil, "kind 2", bye(notSupported)},
		{"not masked", string(appendFrame(nil, kindText, []byte("a"))), nil, "is masked", bye(protocolError)},
		{"an extension", "\xc1\x80key!", nil, "extension", bye(protocolError)},
		{"a ping in parts", clientFrame(kindPing, false, "a"), nil, "control frame", bye(protocolError)},
		{"a long ping", clientFrame(kindPing, true, strings.Repeat("a", 126)), nil, "control frame", bye(protocolError)},
		{"no beginning", clientFrame(kindMore, true, "a"), nil, "before it has begun", bye(protocolError)},
		{"two beginnings", clientFrame(kindText, false, "a") + text("b"), nil, "within another", bye(protocolError)},
		{"cut off", text("a")[:5], nil, "unexpected EOF", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := &tape{in: strings.NewReader(test.in)}
			s := &socket{conn: conn, in: bufio.NewReader(conn)}
			var got []string
			var err error
			for err == nil {
				var text string
				if text, err = s.read(); err == nil {
					got = append(got, text)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
			if test.says == "" && err != io.EOF || !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %q, want %q", err, test.says)
			}
			if got := conn.out.String(); got != test.answers {
				t.Errorf("it answers %q, want %q", got, test.answers)
			}
		})
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte(clientFrame(kindText, true, "hello")))
	f.Add([]byte(clientFrame(kindMore, false, strings.Repeat("a", 300))))
	f.Add([]byte("\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readFrame(bytes.NewReader(b))
		bad := new(badFrame)
		if err != nil {
			if err != io.EOF && err != io.ErrUnexpectedEOF && !errors.As(err, &bad) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		again, err := readFrame(strings.NewReader(clientFrame(got.kind, got.final, string(got.body))))
		if err != nil || !cmp.Equal(got, again, cmp.AllowUnexported(frame{})) {
			t.Errorf("%+v is read back as %+v: %v", got, again, err)
		}
	})
}
