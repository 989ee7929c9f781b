package flotilla

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/frontend"
)

// TrustForwarded is for programs behind a proxy that speaks HTTP, and says in X-Forwarded-For who its client is. Nothing of the kind
// is believed without it. A balancer that only passes bytes on needs Config.Proxies instead.
//
// In requests from proxies, RemoteAddr becomes the rightmost address of X-Forwarded-For that is not itself in proxies: what stands
// left of it is the client's word. Where something else than an address stands, or nothing, it is the last proxy found.
// Its port is 0 if the header has none. The other X-Forwarded headers, such as X-Forwarded-Proto, reach next as they are: the
// proxy must set them, and not pass on a client's. Request.TLS tells of the connection to the proxy, as ever.
//
// From anybody else, all X-Forwarded headers are deleted. Forwarded and X-Real-IP always are: a proxy that does not know them passes on
// whatever a client says.
func TrustForwarded(proxies []netip.Prefix, next http.Handler) http.Handler {
	proxies = slices.Clone(proxies)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client := *r // a handler must not change the request that it got
		client.Header = r.Header.Clone()
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		trusted := err == nil && frontend.Among(proxies, peer.Addr())
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

// forwardedFor returns the rightmost address, "host:port", of a request's X-Forwarded-For that is not in proxies; peer is who sent it.
func forwardedFor(peer string, lines []string, proxies []netip.Prefix) string {
	all := strings.Join(lines, ",")
	for {
		comma := strings.LastIndexByte(all, ',')
		addr, ok := parseForwarded(strings.Trim(all[comma+1:], " \t"))
		if !ok {
			return peer
		}
		peer = addr.String()
		if comma < 0 || !frontend.Among(proxies, addr.Addr()) {
			return peer
		}
		all = all[:comma]
	}
}

// parseForwarded understands the forms that proxies write an address in: alone, in brackets, with a port.
func parseForwarded(s string) (netip.AddrPort, bool) {
	if addr, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port()), true
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	addr, err := netip.ParseAddr(s)
	return netip.AddrPortFrom(addr.Unmap().WithZone(""), 0), err == nil
}
