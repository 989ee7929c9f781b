package certs

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
)

// openCerts is New for certificates that belong to no node. with changes the configuration.
func openCerts(
	p Policy, storage certmagic.Storage, development bool, ready func(context.Context) error, l *slog.Logger, with ...func(*Config),
) (*Certs, error) {
	cfg := Config{Policy: p, Storage: storage, Development: development, Ready: ready, Log: l}
	for _, f := range with {
		f(&cfg)
	}
	return New(cfg)
}

// offline keeps a node from the network.
func offline(c *Config) { c.Lookup, c.Dial, c.Listen = stubca.Lookup, stubca.Dial, stubca.Listen }

// skipShort leaves a test out of the short form.
func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
}

// cases returns how many cases a test goes through: all with -long, else the usual number. The
// test's log says so.
func cases(t *testing.T, all, usual int) int {
	t.Helper()
	if *long {
		return all
	}
	t.Logf("%d in place of %d; -long goes through all cases", usual, all)
	return usual
}

// onlyLong leaves a test out unless -long is set.
func onlyLong(t *testing.T) {
	t.Helper()
	if !*long {
		t.Skip("goes through days of virtual time: it runs with -long")
	}
}

// listenLoopback listens until the test ends.
func listenLoopback(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}
