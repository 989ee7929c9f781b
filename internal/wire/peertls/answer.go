package peertls

import (
	"fmt"
	"io"
	"strings"
)

const (
	answerAccept = 1 // nothing follows
	answerRefuse = 2 // one byte of length and a text follow
	maxReason    = 255
)

// Answer is the first message of a server, before the protocol begins: whether it takes the
// connection.
type Answer struct {
	Refused bool   // the server closes the connection
	Reason  string // of a refusal; at most 255 bytes are sent
}

// Encode returns the bytes of the answer. A longer reason is cut.
func (a Answer) Encode() []byte {
	if !a.Refused {
		return []byte{answerAccept}
	}
	text := a.Reason
	if len(text) > maxReason {
		text = text[:maxReason]
	}
	text = strings.ToValidUTF8(text, "")
	return append([]byte{answerRefuse, byte(len(text))}, text...)
}

// ReadAnswer reads an answer, and nothing behind it. What is not UTF-8 in a reason is left out.
func ReadAnswer(r io.Reader) (Answer, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return Answer{}, fmt.Errorf("no answer: %w", err)
	}
	switch head[0] {
	case answerAccept:
		return Answer{}, nil
	case answerRefuse:
		if _, err := io.ReadFull(r, head[1:]); err != nil {
			return Answer{}, fmt.Errorf("refused without a reason: %w", err)
		}
		text := make([]byte, head[1])
		if _, err := io.ReadFull(r, text); err != nil {
			return Answer{}, fmt.Errorf("refused without a reason: %w", err)
		}
		return Answer{Refused: true, Reason: strings.ToValidUTF8(string(text), "")}, nil
	}
	return Answer{}, fmt.Errorf("answer %d is not known", head[0])
}

// Err returns nil for an accepted connection, else a [RefusedError].
func (a Answer) Err() error {
	if !a.Refused {
		return nil
	}
	return &RefusedError{Reason: a.Reason}
}
