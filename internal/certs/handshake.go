package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"

	"github.com/flotilla-ha/flotilla/internal/certs/staple"
	"github.com/flotilla-ha/flotilla/internal/hostname"
)

const (
	handshakeWait = 5 * time.Second // until it is known what a handshake gets
	// unmanaged names with more dots are not looked up in certmagic's cache
	maxDots = 10
)

// errUnknownName refuses a client at its first message. The name is not in it: otherwise an
// attacker could fill the log with names.
var errUnknownName = errors.New("flotilla: no certificate is served for this name")

// handshakes chooses certificates for handshakes. Its methods are safe for concurrent use.
type handshakes struct {
	loader      *loader
	demands     *demands
	provisional *provisional
	staples     *staple.Stapler
	limit       Limiter
	challenges  challengeCounts // of TLS-ALPN-01
}

// config returns a configuration for clients. first is the name for clients that send none; empty:
// there is none.
func (h *handshakes) config(first string) *tls.Config {
	return &tls.Config{
		// A nil configuration means this one, or the copy that a server has made of it.
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if err := h.admit(hello); err != nil {
				h.limit.Refuse(hello.Conn)
				return nil, err
			}
			return nil, h.limit.Acquire(hello)
		},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := h.certificate(hello, first)
			if err != nil {
				h.limit.Refuse(hello.Conn)
				return nil, err
			}
			return cert, h.limit.Acquire(hello)
		},
		NextProtos: []string{"h2", "http/1.1", acmez.ACMETLS1Protocol},
		MinVersion: tls.VersionTLS12,
	}
}

// isChallenge reports whether hello may come from an authority that validates a TLS-ALPN-01
// challenge.
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return slices.Contains(hello.SupportedProtos, acmez.ACMETLS1Protocol)
}

// isChallenged reports whether an order of some node waits for name to be validated by TLS-ALPN-01.
// certmagic's solver stores the token before the authority is told, and the write is acknowledged
// when all nodes have it. So any node can answer.
func (h *handshakes) isChallenged(ctx context.Context, name string) bool {
	if _, ok := certmagic.GetACMEChallenge(name); ok {
		return true
	}
	return slices.ContainsFunc(h.loader.config.Issuers, func(i certmagic.Issuer) bool {
		safe := certmagic.StorageKeys.Safe
		return h.loader.config.Storage.Exists(ctx, "acme/"+safe(i.IssuerKey())+"/challenge_tokens/"+safe(name)+".json")
	})
}

// admit refuses a client that asks for a name which cannot have a certificate here, before keys are
// exchanged. It only reads memory, so a flood of such names costs next to nothing. With OnDemand
// every name may have one, and the DecisionFunc is asked later, in GetCertificate.
func (h *handshakes) admit(hello *tls.ClientHelloInfo) error {
	name := strings.ToLower(hello.ServerName)
	config := h.loader.config
	switch {
	case len(name) > hostname.MaxLength || name == "" && isChallenge(hello):
		return errUnknownName
	case isChallenge(hello) && len(hello.SupportedProtos) == 1:
		if !h.isChallenged(hello.Context(), name) {
			h.challenges.unknown.Inc()
			return errUnknownName // certmagic would log it
		}
		return nil
	case name == "" || h.demands.config != nil || config.FallbackServerName != "" || config.CertSelection != nil:
		return nil
	}
	if h.loader.names.manages(name) || strings.Count(name, ".") <= maxDots && len(h.loader.matching(name)) > 0 {
		return nil
	}
	return errUnknownName
}

// certificate is GetCertificate of a configuration. first is as in config.
func (h *handshakes) certificate(hello *tls.ClientHelloInfo, first string) (*tls.Certificate, error) {
	if isChallenge(hello) {
		h.limit.Release(hello.Conn)
		return h.challenge(hello)
	}
	if hello.ServerName == "" {
		named := *hello
		named.ServerName = h.defaultName(hello.Conn, first)
		hello = &named
	}
	name := strings.ToLower(hello.ServerName)
	h.wait(hello, name)
	if own, err := h.provisional.get(hello.Context(), name); own != nil || err != nil {
		return own, err
	}
	if h.demands.has(name) {
		if cert, err := h.demands.await(hello, name); cert != nil || err != nil {
			return cert, err
		}
	}
	cert, err := h.loader.config.GetCertificate(hello)
	return h.staples.Attach(cert), err
}

// challenge returns what proves control of a name to an authority.
func (h *handshakes) challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := h.loader.config.GetCertificate(hello)
	switch {
	case len(hello.SupportedProtos) > 1: // it is no challenge
	case err == nil:
		h.challenges.answered.Inc()
	default:
		h.challenges.unknown.Inc()
	}
	return cert, err
}

// defaultName returns the name for a client without SNI, such as a balancer's check, or a client
// that was given an address: the address that it came to, if that has a certificate, else
// certmagic's DefaultServerName, else first.
func (h *handshakes) defaultName(conn net.Conn, first string) string {
	ip := ""
	if addr, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
		ip = addr.Addr().Unmap().WithZone("").String()
		if h.loader.names.isDeclared(ip) || len(h.loader.matching(ip)) > 0 {
			return ip
		}
	}
	if h.loader.config.DefaultServerName != "" {
		return h.loader.config.DefaultServerName
	}
	if first != "" {
		return first
	}
	return ip
}

// wait makes a client wait until it is known whether there is a certificate, as on a node that has
// just started. A balancer without health checks takes an open port for a working node, and a
// client whose handshake is refused is not sent to another node.
func (h *handshakes) wait(hello *tls.ClientHelloInfo, name string) {
	known, none := h.loader.names.awaits(name)
	if known == nil {
		return
	}
	select {
	case <-known:
		if none {
			h.limit.Release(hello.Conn) // the storage is asked first
		}
		return
	default:
	}
	h.limit.Release(hello.Conn)
	timer := time.NewTimer(handshakeWait)
	defer timer.Stop()
	select {
	case <-known:
	case <-timer.C:
	case <-hello.Context().Done():
	}
}
