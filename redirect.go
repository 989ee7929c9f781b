package flotilla

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// redirect sends a visitor to the same page over https. The way leads to the host that the visitor
// asked for and nowhere else: the Location is built from a checked host and from the path and query
// of the request. Whatever does not fit gets 400.
func (c *certs) redirect(w http.ResponseWriter, r *http.Request) {
	host, ok := requestHost(r)
	if !ok {
		http.Error(w, "flotilla: the Host of this request is not a valid host name or address, so it cannot be redirected to https", http.StatusBadRequest)
		return
	}
	if !c.redirectable(r, host) {
		http.Error(w, "flotilla: the target of this request is not a path of this host, so it cannot be redirected to https", http.StatusBadRequest)
		return
	}
	to := url.URL{Scheme: "https", Host: host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery}
	if port := c.port.Load(); c.development && port != 0 {
		to.Host = net.JoinHostPort(host, strconv.Itoa(int(port))) // nobody forwards 443 to a development node
	} else if strings.Contains(host, ":") {
		to.Host = "[" + host + "]"
	}
	w.Header().Set("Connection", "close")
	http.Redirect(w, r, to.String(), c.redirectStatus)
}

// redirectable reports whether the target of r is a path of host.
func (c *certs) redirectable(r *http.Request, host string) bool {
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
func (c *certs) manages(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(name) != nil
}

// requestHost returns the host that r is for, without its port: a name in lower case without the dot
// at its end, or an address as netip.Addr writes it. It reports false for anything that is not one of
// the two in the strictest reading, or that a browser would take for something else.
func requestHost(r *http.Request) (string, bool) {
	host := r.Host
	if rest, ok := strings.CutPrefix(host, "["); ok {
		text, port, ok := strings.Cut(rest, "]")
		addr, err := netip.ParseAddr(text)
		if !ok || err != nil || !addr.Is6() || addr.Zone() != "" || port != "" && !(port[0] == ':' && isPort(port[1:])) {
			return "", false
		}
		return addr.String(), true
	}
	host, port, ok := strings.Cut(host, ":")
	if ok && !isPort(port) {
		return "", false
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String(), addr.Is4()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host, isHostName(host)
}

// isPort reports whether s is a port. Nothing after the colon is the default one (RFC 3986, 3.2.3).
func isPort(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// isHostName reports whether s is a host name in lower case: labels of letters, digits and hyphens (RFC
// 1123, 2.1), those of internationalized names in their ASCII form. The last label must not be a
// number, or browsers read the name as an IPv4 address (WHATWG URL, 3.5).
func isHostName(s string) bool {
	if len(s) > longestName {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if len(label) < 1 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	last := labels[len(labels)-1]
	digits := strings.TrimLeft(last, "0123456789") == ""
	hex, isHex := strings.CutPrefix(last, "0x")
	return !digits && !(isHex && strings.TrimLeft(hex, "0123456789abcdef") == "")
}
