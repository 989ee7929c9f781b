package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/nacl/secretbox"
)

const objectNonce = 24 // bytes before the box

// objectKey is the key that an S3 storage sealed its objects with; nil: they are in clear.
type objectKey *[32]byte

// parseObjectKey reads a key file. Those storages take the 32 bytes of their option as they are, so 32 characters are the usual
// form; a line end after them is none of them.
func parseObjectKey(file []byte) (objectKey, error) {
	raw := file
	if len(raw) > 32 {
		raw = []byte(strings.TrimSuffix(strings.TrimSuffix(string(file), "\n"), "\r"))
	}
	text := strings.TrimSpace(string(file))
	if len(raw) != 32 && len(text) == 64 {
		raw, _ = hex.DecodeString(text)
	}
	if len(raw) != 32 && len(text) < 64 {
		raw, _ = base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "="))
	}
	if len(raw) != 32 {
		return nil, fmt.Errorf("a key is 32 bytes as they are, or 64 hexadecimal digits, or the base64 of 32 bytes; this file has %d bytes and is none of these", len(file))
	}
	return objectKey((*[32]byte)(raw)), nil
}

// openObject returns what was sealed into an object, nonce and secretbox, or the object itself if there is no key.
func openObject(key objectKey, object []byte) ([]byte, error) {
	if key == nil {
		return object, nil
	}
	if len(object) < objectNonce+secretbox.Overhead {
		return nil, fmt.Errorf("it has %d bytes, and a sealed object has %d at the least", len(object), objectNonce+secretbox.Overhead)
	}
	value, ok := secretbox.Open([]byte{}, object[objectNonce:], (*[objectNonce]byte)(object), key)
	if !ok {
		return nil, errors.New("it does not open with this key: it was sealed with another, or not at all, or is damaged")
	}
	return value, nil
}
