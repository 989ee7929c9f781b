package flotilla

import (
	"net/http"
	"strconv"
	"time"
)

// HSTS tells browsers to come with https alone for maxAge, counted in full seconds and from each answer on: it sets Strict-Transport-Security
// (RFC 6797) on the answers of next. It does so only over TLS, and only for hosts whose certificate is there and from the certificate
// authority: a browser that has been told so lets nobody click a warning away. It never does for IP addresses, nor in
// development mode. Zero makes browsers forget. A negative maxAge, or one below a second, as of a bare number of seconds, sets nothing, and is
// logged as an error. What next sets itself is left alone.
func (n *Node) HSTS(maxAge time.Duration, next http.Handler) http.Handler {
	return n.certs.hsts(maxAge, next)
}

func (c *certs) hsts(maxAge time.Duration, next http.Handler) http.Handler {
	if maxAge < 0 || maxAge > 0 && maxAge < time.Second {
		c.log.Error("HSTS is not set: maxAge must be 0, or a second at least; write it with a unit, such as 365*24*time.Hour", "maxAge", maxAge)
		return next
	}
	value := "max-age=" + strconv.FormatInt(int64(maxAge/time.Second), 10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host, ok := requestHost(r); ok && r.TLS != nil && !c.development && isHostName(host) && c.serves(host) {
			w.Header().Set("Strict-Transport-Security", value)
		}
		next.ServeHTTP(w, r)
	})
}
