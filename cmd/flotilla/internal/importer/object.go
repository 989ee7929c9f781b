package importer

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/nacl/secretbox"
)

const (
	objectNonce    = 24 // bytes before the box
	objectOverhead = objectNonce + secretbox.Overhead
)

// ObjectKey is the key that an S3 storage sealed its objects with. Nil means that they are in
// clear.
type ObjectKey *[32]byte

// ParseObjectKey reads a key file. The S3 storages take the 32 bytes of their option as they are,
// so 32 characters are the usual form. A line end after them is not part of the key.
func ParseObjectKey(file []byte) (ObjectKey, error) {
	raw := file
	if len(raw) > 32 {
		raw = []byte(strings.TrimSuffix(strings.TrimSuffix(string(file), "\n"), "\r"))
	}
	text := strings.TrimSpace(string(file))
	if len(raw) != 32 && len(text) == 64 {
		raw, _ = hex.DecodeString(text)
	}
	if len(raw) != 32 && len(text) < 64 {
		standard := strings.NewReplacer("-", "+", "_", "/").Replace(text)
		raw, _ = base64.RawStdEncoding.DecodeString(strings.TrimRight(standard, "="))
	}
	if len(raw) != 32 {
		return nil, fmt.Errorf("a key is 32 bytes, or 64 hexadecimal digits, or the base64 of 32 bytes; "+
			"this file has %d bytes and is none of these", len(file))
	}
	return ObjectKey((*[32]byte)(raw)), nil
}

// openObject returns the value that is sealed in an object: a nonce and a secretbox. Without a key
// the object is the value.
func openObject(key ObjectKey, object []byte) ([]byte, error) {
	if key == nil {
		return object, nil
	}
	if len(object) < objectOverhead {
		return nil, fmt.Errorf("it has %d bytes, and a sealed object has at least %d", len(object), objectOverhead)
	}
	value, ok := secretbox.Open([]byte{}, object[objectNonce:], (*[objectNonce]byte)(object), key)
	if !ok {
		return nil, errors.New("it does not open with this key: " +
			"it was sealed with another one, was not sealed, or is damaged")
	}
	return value, nil
}
