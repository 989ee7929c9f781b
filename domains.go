package flotilla

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// domainsField is the Field of a ConfigError about the domains that are to be served.
const domainsField = "domains"

// siteNames returns the names that certificates of domains are for, in the one form that certmagic stores certificates under: under
// another it would find none, and each node would order its own. The error is a *ConfigError that says how to write a domain.
func siteNames(domains []string, wildcards bool) ([]string, error) {
	names := make([]string, 0, len(domains))
	for _, d := range domains {
		name, remedy := siteName(d)
		if remedy == "" && strings.HasPrefix(name, "*.") && !wildcards {
			remedy = "a wildcard certificate needs the DNS-01 challenge; set the issuer's DNS01Solver in Config.TLS.Configure"
		}
		if remedy != "" {
			return nil, &ConfigError{Field: domainsField, Reason: fmt.Sprintf("%q is neither a domain name nor an IP address: %s", d, remedy)}
		}
		names = append(names, name)
	}
	return names, nil
}

// siteName returns the name of a domain, or what is wrong with it and what to do about it.
func siteName(domain string) (name, remedy string) {
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
	case len(ascii) > longestName:
		return "", fmt.Sprintf("it is longer than %d bytes", longestName)
	case !isHostName(host):
		return "", "its labels must have 1 to 63 letters, digits and hyphens, no hyphen at either end, and the last must not be a number"
	}
	return ascii, ""
}
