package blocker

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/caddyserver/certmagic"
)

// Blocker occupies a port of loopback from Start to Close. Its methods are safe for concurrent use.
type Blocker struct {
	issuers []*certmagic.ACMEIssuer // whose solvers are blocked
	listen  func(network, addr string) (net.Listener, error)

	mu   sync.Mutex
	ln   net.Listener // nil: not started, or not needed
	done chan struct{}
}

// New returns a blocker for the issuers that solve challenges by listening. An issuer that solves
// DNS-01 does not, and one whose ports were set on purpose is left alone. Nothing is opened yet.
func New(listen func(network, addr string) (net.Listener, error), issuers []certmagic.Issuer) *Blocker {
	b := &Blocker{listen: listen}
	for _, i := range issuers {
		acme, ok := i.(*certmagic.ACMEIssuer)
		if ok && acme.DNS01Solver == nil && acme.ListenHost == "" && acme.AltHTTPPort == 0 && acme.AltTLSALPNPort == 0 {
			b.issuers = append(b.issuers, acme)
		}
	}
	return b
}

// Start occupies the port and points the issuers at it. It must run before the first order. Further
// calls do nothing, and neither does a call without issuers to block.
func (b *Blocker) Start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ln != nil || len(b.issuers) == 0 {
		return nil
	}
	ln, err := b.listen("tcp4", "127.0.0.1:0")
	if err != nil {
		var err6 error
		if ln, err6 = b.listen("tcp6", "[::1]:0"); err6 != nil {
			return fmt.Errorf("flotilla: cannot listen on loopback, which certmagic's challenge solvers need: %w", errors.Join(err, err6))
		}
	}
	b.ln, b.done = ln, make(chan struct{})
	go refuse(ln, b.done)
	addr := ln.Addr().(*net.TCPAddr)
	for _, i := range b.issuers {
		i.ListenHost, i.AltHTTPPort, i.AltTLSALPNPort = addr.IP.String(), addr.Port, addr.Port
	}
	return nil
}

// refuse closes each connection until ln is closed.
func refuse(ln net.Listener, done chan struct{}) {
	defer close(done)
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			conn.Close()
		}
	}
}

// Close gives the port back. The blocker cannot be started again.
func (b *Blocker) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.issuers = nil
	if b.ln == nil {
		return
	}
	b.ln.Close()
	<-b.done
	b.ln = nil
}
