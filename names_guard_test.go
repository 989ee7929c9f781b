package flotilla

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

// A name of many labels that nobody manages is not looked for, even if the program has a certificate for it.
func TestManyLabelsAreNotLookedFor(t *testing.T) {
	c := bootCerts(t, newMemStorage(), always, func() error { return nil }, nil)
	config, err := c.tlsConfig("a.test")
	if err != nil {
		t.Fatal(err)
	}
	settle(t, c)
	for dots, want := range map[int]error{strangeDots: nil, strangeDots + 1: errUnknownName} {
		name := strings.Repeat("a.", dots) + "test"
		own, err := newSelfSigned(name, devca.NewSerial(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.config.CacheUnmanagedTLSCertificate(t.Context(), *own, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := config.GetConfigForClient(&tls.ClientHelloInfo{ServerName: name}); !errors.Is(err, want) {
			t.Errorf("a name with %d dots: %v, want %v", dots, err, want)
		}
	}
}
