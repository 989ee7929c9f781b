package importer

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/secretbox"
)

// sealed is an object as the S3 storages write it.
func sealed(key *[32]byte, value string) string {
	nonce := [24]byte{1, 2, 3, byte(len(value))}
	return string(secretbox.Seal(nonce[:], []byte(value), &nonce, key))
}

func TestObjectKeyForms(t *testing.T) {
	const text = "0123456789abcdefghijklmnopqrst\xff\n" // a key may end with a line end
	key := [32]byte([]byte(text))
	for name, file := range map[string]string{
		"as it is":               text,
		"with a line end":        text + "\n",
		"with a DOS line end":    text + "\r\n",
		"hexadecimal":            hex.EncodeToString(key[:]) + "\n",
		"upper-case hexadecimal": " " + strings.ToUpper(hex.EncodeToString(key[:])),
		"base64":                 base64.StdEncoding.EncodeToString(key[:]) + "\n",
		"base64 for URLs":        base64.RawURLEncoding.EncodeToString(key[:]),
	} {
		got, err := ParseObjectKey([]byte(file))
		if err != nil || *got != key {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, file := range map[string]string{
		"nothing":         "",
		"31 bytes":        text[:31],
		"34 bytes":        text + "ab",
		"63 digits":       strings.Repeat("a", 63),
		"64 other":        strings.Repeat("z", 64),
		"base64 of fewer": base64.StdEncoding.EncodeToString(key[:30]),
	} {
		_, err := ParseObjectKey([]byte(file))
		if err == nil || !strings.Contains(err.Error(), "is none of these") || file != "" && strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenObject(t *testing.T) {
	key, other := &[32]byte{1}, &[32]byte{2}
	for _, value := range []string{"", "x", strings.Repeat("x", 1<<16)} {
		object := sealed(key, value)
		if got, err := openObject(key, []byte(object)); err != nil || string(got) != value || got == nil {
			t.Errorf("%d bytes: %v", len(value), err)
		}
		for name, damaged := range map[string]string{
			"cut":     object[:len(object)-1],
			"longer":  object + "x",
			"another": sealed(other, value),
			"flipped": object[:len(object)-1] + string(object[len(object)-1]^1),
			"short":   object[:39],
			"nothing": "",
			"clear":   value,
		} {
			want := "it does not open with this key"
			if len(damaged) < 40 {
				want = fmt.Sprintf("it has %d bytes, and a sealed object has at least 40", len(damaged))
			}
			if _, err := openObject(key, []byte(damaged)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%d bytes, %s: %v, want %q", len(value), name, err, want)
			}
		}
	}
	if got, err := openObject(nil, []byte("clear")); err != nil || string(got) != "clear" {
		t.Errorf("without a key: %q, %v", got, err)
	}
}

func FuzzOpenObject(f *testing.F) {
	key := &[32]byte{7}
	f.Add([]byte(sealed(key, "value")), []byte("value"))
	f.Add([]byte{}, []byte{})
	f.Add(make([]byte, 40), make([]byte, 24))
	f.Fuzz(func(t *testing.T, object, value []byte) {
		if got, err := openObject(key, object); err == nil && !bytes.Equal(secretbox.Seal(object[:24:24], got, (*[24]byte)(object), key), object) {
			t.Error("what opens is not what was sealed")
		}
		if got, err := openObject(key, []byte(sealed(key, string(value)))); err != nil || !bytes.Equal(got, value) {
			t.Errorf("a sealed object does not open: %v", err)
		}
		ParseObjectKey(object)
	})
}
