package seal

import (
	"encoding/base32"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

const secretPrefix = "flt1_" // of the text form of a secret

func textEncoding() *base32.Encoding { return base32.StdEncoding.WithPadding(base32.NoPadding) }

// ParseSecret reads the text form of a secret: "flt1_", 52 letters and digits, and 7 more as a
// checksum. Upper and lower case are the same, and space around it is ignored. An error says what
// is wrong and never repeats the text.
func ParseSecret(text string) (Secret, error) {
	var s Secret
	text = strings.TrimSpace(text)
	body, ok := strings.CutPrefix(strings.ToLower(text), secretPrefix)
	if !ok {
		return s, errors.New("a secret begins with " + secretPrefix + "; make one with flotilla.NewSecret")
	}
	enc := textEncoding()
	want := enc.EncodedLen(len(s)) + enc.EncodedLen(crc32.Size)
	if len(body) != want {
		return s, fmt.Errorf("a secret has %d characters after %s, this text has %d; was it cut short?",
			want, secretPrefix, len(body))
	}
	head, tail := body[:enc.EncodedLen(len(s))], body[enc.EncodedLen(len(s)):]
	raw, err1 := enc.DecodeString(strings.ToUpper(head))
	_, err2 := enc.DecodeString(strings.ToUpper(tail))
	if err1 != nil || err2 != nil {
		return s, errors.New("a secret has only the letters a to z and the digits 2 to 7 after " + secretPrefix)
	}
	copy(s[:], raw)
	if s.Encode() != secretPrefix+body {
		return Secret{}, errors.New("the checksum of this secret is wrong; copy it again, whole")
	}
	return s, nil
}

// Encode returns the text form that ParseSecret reads. It is the secret itself.
func (s Secret) Encode() string {
	enc := textEncoding()
	sum := crc32.Checksum(s[:], crc32.MakeTable(crc32.Castagnoli))
	tail := []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}
	return secretPrefix + strings.ToLower(enc.EncodeToString(s[:])+enc.EncodeToString(tail))
}
