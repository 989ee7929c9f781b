package certs

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/hostname"
)

// redirect sends a visitor to the same page over https. The way leads to the host that the visitor
// asked for and nowhere else: the Location is built from a checked host and from the path and query
// of the request. Whatever does not fit gets 400.
func (c *Certs) redirect(w http.ResponseWriter, r *http.Request) {
	host, ok := hostname.OfRequest(r)
	if !ok {
		http.Error(w, "flotilla: the Host of this request is not a valid host name or address, so it cannot be redirected to https", http.StatusBadRequest)
		return
	}
	if !c.redirectable(r, host) {
		http.Error(w, "flotilla: the target of this request is not a path of this host, so it cannot be redirected to https", http.StatusBadRequest)
		return
	}
	to := url.URL{Scheme: "https", Host: host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery}
	if port := c.port.Load(); c.Development && port != 0 {
		to.Host = net.JoinHostPort(host, strconv.Itoa(int(port))) // nobody forwards 443 to a development node
	} else if strings.Contains(host, ":") {
		to.Host = "[" + host + "]"
	}
	w.Header().Set("Connection", "close")
	http.Redirect(w, r, to.String(), c.RedirectStatus)
}

// redirectable reports whether the target of r is a path of host.
func (c *Certs) redirectable(r *http.Request, host string) bool {
	u := r.URL
	if u.Opaque != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") || strings.ContainsFunc(u.RawQuery, notInQuery) {
		return false
	}
	if u.Scheme == "" && u.Host == "" {
		return true // origin-form
	}
	// Of an absolute target net/http takes the host and forgets the Host field (RFC 9112, 3.2.2). A
	// cache on the way may go by that field, so the host must be a name that is served here. Who
	// calls the handler without a server has no field to forget.
	_, served := r.Context().Value(http.ServerContextKey).(*http.Server)
	return u.Scheme == "http" && (!served || c.manages(host))
}

// notInQuery reports whether c cannot stand in a query (RFC 3986, 3.4) and would change what follows.
func notInQuery(c rune) bool { return c <= ' ' || c == 0x7f || c == '#' }

// manages reports whether certificates for name are obtained here.
func (c *Certs) manages(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(name) != nil
}
