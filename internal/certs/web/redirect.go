package web

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/hostname"
)

// redirect sends a visitor to the same page of the same host over https. A request that does not
// fit gets 400.
func (h *Handlers) redirect(w http.ResponseWriter, r *http.Request) {
	host, ok := hostname.OfRequest(r)
	if !ok {
		http.Error(w, "flotilla: the Host of this request is not a valid host name or address, so it cannot be redirected to https", http.StatusBadRequest)
		return
	}
	if !h.redirectable(r, host) {
		http.Error(w, "flotilla: the target of this request is not a path of this host, so it cannot be redirected to https", http.StatusBadRequest)
		return
	}
	to := url.URL{
		Scheme: "https", Host: host, Path: r.URL.Path, RawPath: r.URL.RawPath,
		RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery,
	}
	if port := h.port.Load(); h.Development && port != 0 {
		to.Host = net.JoinHostPort(host, strconv.Itoa(int(port))) // nothing forwards port 443 to a development node
	} else if strings.Contains(host, ":") {
		to.Host = "[" + host + "]"
	}
	w.Header().Set("Connection", "close")
	http.Redirect(w, r, to.String(), h.Status)
}

// redirectable reports whether the target of r is a path of host.
func (h *Handlers) redirectable(r *http.Request, host string) bool {
	u := r.URL
	if u.Opaque != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") || strings.ContainsFunc(u.RawQuery, notInQuery) {
		return false
	}
	if u.Scheme == "" && u.Host == "" {
		return true // origin-form
	}
	// For an absolute target net/http uses its host and drops the Host field (RFC 9112, 3.2.2). A
	// cache on the way may go by that field, so the host must be a name that is served here. A
	// handler that is called without a server has no field to drop.
	_, served := r.Context().Value(http.ServerContextKey).(*http.Server)
	return u.Scheme == "http" && (!served || h.Manages(host))
}

// notInQuery reports whether c is not allowed in a query (RFC 3986, 3.4) and would change the
// meaning of what follows.
func notInQuery(c rune) bool { return c <= ' ' || c == 0x7f || c == '#' }
