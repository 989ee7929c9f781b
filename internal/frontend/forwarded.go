package frontend

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// TrustForwarded returns a handler that gives next the client's address from X-Forwarded-For, in
// requests from proxies, and removes such headers from all others. The root package's function of
// the same name documents it for users.
func TrustForwarded(proxies []netip.Prefix, next http.Handler) http.Handler {
	proxies = slices.Clone(proxies)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client := *r // a handler must not change the request that it got
		client.Header = r.Header.Clone()
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		trusted := err == nil && among(proxies, peer.Addr())
		if trusted {
			client.RemoteAddr = forwardedFor(r.RemoteAddr, r.Header.Values("X-Forwarded-For"), proxies)
		}
		for name := range client.Header {
			if name == "Forwarded" || name == "X-Real-Ip" || !trusted && strings.HasPrefix(name, "X-Forwarded-") {
				delete(client.Header, name)
			}
		}
		next.ServeHTTP(w, &client)
	})
}

// forwardedFor returns the rightmost address of a request's X-Forwarded-For that is not in proxies,
// as "host:port". peer sent the request.
func forwardedFor(peer string, lines []string, proxies []netip.Prefix) string {
	all := strings.Join(lines, ",")
	for {
		comma := strings.LastIndexByte(all, ',')
		addr, ok := parseForwarded(strings.Trim(all[comma+1:], " \t"))
		if !ok {
			return peer
		}
		peer = addr.String()
		if comma < 0 || !among(proxies, addr.Addr()) {
			return peer
		}
		all = all[:comma]
	}
}

// parseForwarded parses the forms in which proxies write an address: alone, in brackets, with a
// port.
func parseForwarded(s string) (netip.AddrPort, bool) {
	if addr, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(plainAddr(addr.Addr()), addr.Port()), true
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	addr, err := netip.ParseAddr(s)
	return netip.AddrPortFrom(plainAddr(addr), 0), err == nil
}
