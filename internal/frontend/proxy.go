package frontend

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// proxyHeaderTimeout is for a balancer to send its whole PROXY header, from the first read on.
const proxyHeaderTimeout = 5 * time.Second

// withProxyHeader returns ln, with the PROXY header required of the peers in proxies.
func withProxyHeader(ln net.Listener, proxies []netip.Prefix) net.Listener {
	return &proxyproto.Listener{Listener: ln, ConnPolicy: proxyPolicy(proxies), ReadHeaderTimeout: proxyHeaderTimeout}
}

// proxyPolicy requires the header of proxies, and does not look for one from other peers. With a
// softer rule, a client behind a balancer that does not send headers could choose its own address
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

// proxyMistakes counts and logs that balancers and Config.Proxies do not match. Clients only see a
// closed connection. It logs each kind of mistake once a minute, since anybody can cause the second
// kind.
type proxyMistakes struct {
	log    *slog.Logger
	counts *counts

	mu     sync.Mutex
	logged map[proxyMistake]time.Time
}

// proxyMistake is a way in which balancers and Config.Proxies do not match.
type proxyMistake int

const (
	noHeader      proxyMistake = iota + 1 // a listed balancer sends no header, or a damaged one
	unknownSender                         // a peer that is not listed sends one
)

func newProxyMistakes(log *slog.Logger, counts *counts) *proxyMistakes {
	return &proxyMistakes{log: log, counts: counts, logged: make(map[proxyMistake]time.Time)}
}

// check looks for a mistake in the first bytes of a connection, or in the error instead of them.
func (p *proxyMistakes) check(client *clientConn, first []byte, err error) {
	switch {
	case client == nil:
	case err != nil && client.spoke.Load() && strings.HasPrefix(err.Error(), "proxyproto: "):
		p.counts.noHeader.Inc()
		p.report(noHeader, client)
	case bytes.HasPrefix(first, proxyproto.SIGV1) || bytes.HasPrefix(first, proxyproto.SIGV2[:5]):
		p.counts.unknownSender.Inc()
		p.report(unknownSender, client)
	}
}

func (p *proxyMistakes) report(m proxyMistake, client *clientConn) {
	p.mu.Lock()
	due := time.Since(p.logged[m]) >= time.Minute
	if due {
		p.logged[m] = time.Now()
	}
	p.mu.Unlock()
	if !due {
		return
	}
	peer, at := client.RemoteAddr().String(), client.LocalAddr().String()
	switch m {
	case noHeader:
		p.log.Warn("connections are refused: a balancer in Config.Proxies must begin each with a PROXY header, and did not; "+
			"have it send the header, or take it out of Proxies", "balancer", peer, "at", at)
	case unknownSender:
		p.log.Warn("connections are refused: one begins with a PROXY header, and its sender is not in Config.Proxies; "+
			"if it is your balancer, add its address there", "sender", peer, "at", at)
	}
}

// among reports whether addr is in one of prefixes. An IPv4 address written as one of IPv6 is the
// same.
func among(prefixes []netip.Prefix, addr netip.Addr) bool {
	addr = plainAddr(addr)
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}
