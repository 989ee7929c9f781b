package flotilla

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"
)

const proxyHeaderTimeout = 5 * time.Second // for a balancer to send its whole PROXY header, at the first read

// listenTLS returns the listener that clients of this node speak TLS to: ln, then the PROXY header where one is due, then the gate, then TLS.
// Its connections are *tls.Conn, which is what net/http needs to see for HTTP/2. It keeps the very cfg it is given:
// http.Server.ServeTLS would clone it, and session ticket keys set later would be lost (golang/go#22018).
//
// A handshake runs in the goroutine that first reads, never in Accept. Nothing asks in Accept for RemoteAddr, which waits for
// the PROXY header.
func (c *certs) listenTLS(ln net.Listener, proxies []netip.Prefix, cfg *tls.Config) net.Listener {
	if addr, ok := ln.Addr().(*net.TCPAddr); ok {
		c.port.Store(int32(addr.Port))
	}
	if len(proxies) > 0 {
		ln = &proxyproto.Listener{Listener: ln, ConnPolicy: proxyPolicy(proxies), ReadHeaderTimeout: proxyHeaderTimeout}
	}
	return &gateListener{Listener: ln, gate: c.gate, config: cfg}
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
		if among(proxies, tcp.AddrPort().Addr()) {
			return proxyproto.REQUIRE, nil
		}
		return proxyproto.SKIP, nil
	}
}

// loopbackOnly returns a *ConfigError naming field unless addr, "host:port", can be reached from this machine alone.
func loopbackOnly(field, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return &ConfigError{Field: field, Reason: "an address is host:port", Err: err}
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost") {
		return nil
	}
	return &ConfigError{Field: field, Reason: fmt.Sprintf("%q is not a loopback address, and without Dir, Peers and Secrets "+
		"this is a development node, whose private certificates are for this machine alone; set them, or listen on localhost", addr)}
}
