package flotilla

import (
	"net/http"
	"net/netip"

	"github.com/flotilla-ha/flotilla/internal/frontend"
)

// TrustForwarded is for programs behind a proxy that speaks HTTP, and that names its client in
// X-Forwarded-For. Without TrustForwarded no such header is believed. For a balancer that only
// passes bytes on, use Config.Proxies instead.
//
// In requests from proxies, RemoteAddr becomes the rightmost address of X-Forwarded-For that is not
// itself in proxies: what stands left of it is the client's word. If something other than an
// address stands there, or nothing, RemoteAddr is the last proxy found. Its port is 0 if the header
// has none. The other X-Forwarded headers, such as X-Forwarded-Proto, reach next as they are: the
// proxy must set them, and must not pass on a client's. Request.TLS still describes the connection
// to the proxy.
//
// From other peers, all X-Forwarded headers are deleted. Forwarded and X-Real-IP are always
// deleted: a proxy that does not know them passes on whatever a client sends.
func TrustForwarded(proxies []netip.Prefix, next http.Handler) http.Handler {
	return frontend.TrustForwarded(proxies, next)
}
