package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/certs/selfsign"
)

// provisional gives self-signed certificates for names for which the cluster has never had a
// certificate, so that the port works before the authority has answered. They are in memory only.
// One must never take the place of a real certificate: it is given only while this node knows, from
// a storage that is current, that there is none, and never again once there was one.
type provisional struct {
	loader  *loader
	cluster func() string // its identity
	perNode bool          // each node has certificates of its own
	log     *slog.Logger
}

func (p *provisional) marker(name string) *big.Int { return selfsign.Marker(p.cluster(), name) }

// ours reports whether a node of this cluster would show leaf to a client that asks for name. If
// each node has certificates of its own, any that an authority has issued for name may be one.
func (p *provisional) ours(name string, leaf *x509.Certificate) bool {
	if p.perNode && !bytes.Equal(leaf.RawIssuer, leaf.RawSubject) && leaf.VerifyHostname(name) == nil {
		return true
	}
	if selfsign.Marks(p.cluster(), name, leaf) {
		return true
	}
	for _, x := range p.loader.matching(name) {
		if x.Leaf.Equal(leaf) {
			return true
		}
	}
	return false
}

// get returns what a handshake for name gets while the cluster has no certificate for it, nil if it
// must not get that. ctx is that of the handshake.
func (p *provisional) get(ctx context.Context, name string) (*tls.Certificate, error) {
	declared, own, none := p.loader.names.selfSigned(name)
	if !none || len(p.loader.matching(name)) > 0 { // a wildcard's may be there
		return nil, nil
	}
	has, err := p.loader.inStorage(ctx, declared)
	if err != nil {
		return nil, fmt.Errorf("flotilla: whether there is a certificate is not known: %w", err)
	}
	if has {
		// Another node has just stored it, and may serve it already. This one is about to load it.
		if err := p.loader.refresh(ctx, declared); err != nil {
			p.log.Debug("a new certificate cannot be loaded", "domain", declared, "error", err)
		}
		p.loader.found(declared)
		return nil, nil
	}
	now := time.Now()
	if own == nil || own.Leaf.NotAfter.Sub(now) < selfsign.Left {
		if own, err = selfsign.New(declared, p.marker(declared), now); err != nil {
			return nil, fmt.Errorf("flotilla: a self-signed certificate: %w", err)
		}
	}
	own, first := p.loader.names.give(ctx, declared, own)
	if first {
		p.log.Warn("a self-signed certificate is being served until the authority has answered", "event", event.SelfSigned, "domain", declared)
	}
	return own, nil
}

// selfSigned returns the declared name that stands for name, its self-signed certificate if it has
// one, and whether the cluster has never had another one.
func (t *nameTable) selfSigned(name string) (declared string, own *tls.Certificate, none bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.find(name)
	if m == nil || !m.none {
		return "", nil, false
	}
	return m.name, m.own, true
}

// give returns the self-signed certificate for a declared name: own, unless there is one that lives
// longer. It returns nil if there is a real one by now. first says that none was given before. ctx
// is that of the handshake, which counts until it is over.
func (t *nameTable) give(ctx context.Context, name string, own *tls.Certificate) (given *tls.Certificate, first bool) {
	t.mu.Lock()
	m := t.names[name]
	if !m.none {
		t.mu.Unlock()
		return nil, false
	}
	if m.own == nil || m.own.Leaf.NotAfter.Before(own.Leaf.NotAfter) {
		m.own = own
	}
	given, first = m.own, !m.shown
	m.shown = true
	m.given++
	t.given++
	t.mu.Unlock()
	context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		m.given--
		t.given--
	})
	return given, first
}

// provisional reports whether a handshake under way that asked for name, or for no name if it is
// empty, may have a self-signed certificate.
func (t *nameTable) provisional(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.given == 0 || name == "" {
		return t.given > 0
	}
	m := t.find(strings.ToLower(name))
	return m != nil && m.given > 0
}
