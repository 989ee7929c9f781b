package web

import (
	"net/http"
	"strconv"
	"time"

	"github.com/flotilla-ha/flotilla/internal/hostname"
)

// HSTS sets Strict-Transport-Security on answers over TLS for host names that have a valid
// certificate. maxAge is in full seconds; 0 makes browsers forget. A negative maxAge, or one below
// a second, is logged and sets nothing.
func (h *Handlers) HSTS(maxAge time.Duration, next http.Handler) http.Handler {
	if maxAge < 0 || maxAge > 0 && maxAge < time.Second {
		h.Log.Error("HSTS is not set: maxAge must be 0, or a second at least; write it with a unit, such as 365*24*time.Hour",
			"maxAge", maxAge)
		return next
	}
	value := "max-age=" + strconv.FormatInt(int64(maxAge/time.Second), 10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, ok := hostname.OfRequest(r)
		if ok && r.TLS != nil && !h.Development && hostname.IsValid(host) && h.Serves(host) {
			w.Header().Set("Strict-Transport-Security", value)
		}
		next.ServeHTTP(w, r)
	})
}
