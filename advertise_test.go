package flotilla

import (
	"errors"
	"testing"
)

func TestLoopbackOnly(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:443":          true,
		"127.1.2.3:0":            true,
		"[::1]:443":              true,
		"[::ffff:127.0.0.1]:443": true,
		"localhost:443":          true,
		"LOCALHOST:443":          true,
		":443":                   false,
		"0.0.0.0:443":            false,
		"[::]:443":               false,
		"192.0.2.1:443":          false,
		"localhost.example:443":  false,
		"127.0.0.1":              false,
		"":                       false,
		"443":                    false,
	} {
		err := loopbackOnly("HTTPSAddr", addr)
		var ce *ConfigError
		if (err == nil) != ok || err != nil && (!errors.As(err, &ce) || ce.Field != "HTTPSAddr") {
			t.Errorf("loopbackOnly(%q) = %v, want ok=%v", addr, err, ok)
		}
	}
}
