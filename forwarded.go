package flotilla

import (
	"net/http"
	"net/netip"

	"github.com/flotilla-ha/flotilla/internal/frontend"
)

// TrustForwarded is for programs behind a proxy that speaks HTTP and names its client in
// X-Forwarded-For. Without TrustForwarded, no such header is trusted. For a balancer that only
// forwards bytes, use Config.Proxies instead.
//
// In requests from proxies, RemoteAddr becomes the rightmost address of X-Forwarded-For that is not
// itself in proxies. Everything to the left of it is only the client's claim. If that place holds
// something other than an address, or nothing, RemoteAddr is the last proxy found. The port of
// RemoteAddr is 0 if the header has none. The other X-Forwarded headers, such as X-Forwarded-Proto,
// reach next as they are: the proxy must set them, and must not pass on those of a client.
// Request.TLS still describes the connection to the proxy.
//
// All X-Forwarded headers are deleted from requests of other peers. Forwarded and X-Real-IP are
// always deleted: a proxy that does not know them passes on what a client sends.
func TrustForwarded(proxies []netip.Prefix, next http.Handler) http.Handler {
	return frontend.TrustForwarded(proxies, next)
}
