package hostname

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

// ForCertificates returns the names in the certificates of domains, in the one form under which
// certmagic stores certificates. Under another form it would find none, and each node would order
// its own. The error is an *errs.ConfigError that says how to write a domain.
func ForCertificates(domains []string, wildcards bool) ([]string, error) {
	names := make([]string, 0, len(domains))
	for _, d := range domains {
		name, remedy := forCertificate(d)
		if remedy == "" && strings.HasPrefix(name, "*.") && !wildcards {
			remedy = "a wildcard certificate needs the DNS-01 challenge; set the issuer's DNS01Solver in Config.TLS.Configure"
		}
		if remedy != "" {
			return nil, &errs.ConfigError{Field: errs.Domains, Reason: fmt.Sprintf("%q is neither a domain name nor an IP address: %s", d, remedy)}
		}
		names = append(names, name)
	}
	return names, nil
}

// forCertificate returns the name of a domain, or what is wrong with it and the remedy.
func forCertificate(domain string) (name, remedy string) {
	name = strings.ToLower(strings.TrimSpace(domain))
	if ip, err := netip.ParseAddr(name); err == nil {
		switch {
		case ip.Zone() != "":
			return "", "write the address without its zone"
		case ip.IsUnspecified():
			return "", "clients cannot connect to the unspecified address"
		}
		return ip.Unmap().String(), ""
	}
	switch {
	case name == "":
		return "", "it is empty; leave it out"
	case strings.Contains(name, "://"):
		return "", "it is a URL; write the host name alone"
	case strings.ContainsAny(name, ", \t\r\n;"):
		return "", "give each name as a value of its own"
	case strings.HasPrefix(name, "["):
		return "", "write an IPv6 address without brackets and port"
	case strings.Contains(name, "/"):
		return "", "write the host name without a path"
	case strings.Contains(name, ":"):
		return "", "write the name without a port"
	case strings.HasSuffix(name, "."):
		return "", "leave out the dot at its end"
	}
	ascii, err := idna.ToASCII(name)
	if err != nil {
		return "", "it cannot be written in ASCII (" + err.Error() + ")"
	}
	host, wild := strings.CutPrefix(ascii, "*.")
	switch {
	case strings.Contains(host, "*"):
		return "", "an asterisk stands for the whole first label and nothing else, as in *.example.com"
	case wild && !strings.Contains(host, "."):
		return "", "a wildcard needs two labels below it, as in *.example.com"
	case len(ascii) > MaxLength:
		return "", fmt.Sprintf("it is longer than %d bytes", MaxLength)
	case !IsValid(host):
		return "", "its labels must have 1 to 63 letters, digits and hyphens, no hyphen at either end, and the last must not be a number"
	}
	return ascii, ""
}

// OfRequest returns the host that r is for, without its port: a name in lower case without the dot
// at its end, or an address as netip.Addr writes it. It reports false for anything that is neither
// in the strictest reading, or that a browser would read differently.
func OfRequest(r *http.Request) (string, bool) {
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
	return host, IsValid(host)
}

// isPort reports whether s is a port. An empty one after the colon is the default (RFC 3986,
// 3.2.3).
func isPort(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// IsValid reports whether s is a host name in lower case: labels of letters, digits and hyphens
// (RFC 1123, 2.1), those of internationalized names in their ASCII form. The last label must not be
// a number, or browsers read the name as an IPv4 address (WHATWG URL, 3.5).
func IsValid(s string) bool {
	if len(s) > MaxLength {
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

// MaxLength is the longest name in bytes. certmagic's search for wildcards takes time in the square
// of the length.
const MaxLength = 253
