package frontend

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"
)

const headerWait = 5 * time.Second // for a balancer to send its whole PROXY header, at the first read

// Wrap returns the listener of a port for clients: ln, then the PROXY header where one is due, then the gate, then TLS unless cfg
// is nil. Its connections are *tls.Conn then, which is what net/http needs to see for HTTP/2. It keeps the very cfg it is given:
// http.Server.ServeTLS would clone it, and session ticket keys set later would be lost (golang/go#22018).
//
// A handshake runs in the goroutine that first reads, never in Accept. Nothing asks in Accept for RemoteAddr, which waits for
// the PROXY header.
func Wrap(g *Limiter, ln net.Listener, proxies []netip.Prefix, cfg *tls.Config) net.Listener {
	if len(proxies) > 0 {
		ln = &proxyproto.Listener{Listener: ln, ConnPolicy: proxyPolicy(proxies), ReadHeaderTimeout: headerWait}
	}
	return &limitedListener{Listener: ln, gate: g, config: cfg}
}

// proxyPolicy says that the header is required of proxies, and that what anybody else sends is not looked at. Any softer rule lets
// a client behind a balancer that was not told to send headers choose its own address
// (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2).
func proxyPolicy(proxies []netip.Prefix) proxyproto.ConnPolicyFunc {
	return func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
		tcp, ok := o.Upstream.(*net.TCPAddr)
		if !ok {
			return proxyproto.SKIP, nil
		}
		if Among(proxies, tcp.AddrPort().Addr()) {
			return proxyproto.REQUIRE, nil
		}
		return proxyproto.SKIP, nil
	}
}

// proxyMistake is a way in which balancers and Config.Proxies do not go together. Clients see nothing but a closed connection.
type proxyMistake int

const (
	noHeader       proxyMistake = iota + 1 // a listed balancer sends none, or a damaged one
	strangerHeader                         // somebody who is not listed sends one
)

// mistakeOf returns what is wrong with the first bytes of a connection, 0 if nothing is.
func mistakeOf(c *limitedConn, first []byte, err error) proxyMistake {
	switch {
	case c.client == nil:
	case err != nil && c.client.spoke.Load() && strings.HasPrefix(err.Error(), "proxyproto: "):
		return noHeader
	case bytes.HasPrefix(first, proxyproto.SIGV1) || bytes.HasPrefix(first, proxyproto.SIGV2[:5]):
		return strangerHeader
	}
	return 0
}

// report logs a mistake, each kind once a minute: anybody can make the second.
func (g *Limiter) report(m proxyMistake, c *clientConn) {
	g.mu.Lock()
	pass := time.Since(g.said[m]) >= time.Minute
	if pass {
		g.said[m] = time.Now()
	}
	g.mu.Unlock()
	switch {
	case !pass:
	case m == noHeader:
		g.log.Warn("connections are refused: a balancer in Config.Proxies must begin each with a PROXY header, and did not; have it send the header, or take it out of Proxies",
			"balancer", c.TCPConn.RemoteAddr().String(), "at", c.TCPConn.LocalAddr().String())
	default:
		g.log.Warn("connections are refused: one begins with a PROXY header, and its sender is not in Config.Proxies; if it is a balancer of yours, add its address there",
			"sender", c.TCPConn.RemoteAddr().String(), "at", c.TCPConn.LocalAddr().String())
	}
}

// Among reports whether addr is in one of prefixes. An IPv4 address written as one of IPv6 is the same.
func Among(prefixes []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}
