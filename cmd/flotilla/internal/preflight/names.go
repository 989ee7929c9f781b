package preflight

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/vip"
)

const maxDirectory = 64 << 10 // bytes of an authority's directory

// authority asks the certificate authority for its directory, and what the time is.
func (c *checker) authority(ctx context.Context) {
	const item = "authority"
	if c.dev {
		return
	}
	url := c.cfg.TLS.CA
	if url == "" {
		url = certmagic.LetsEncryptProductionCA
	}
	const remedy = "see that this machine may connect to it, and that FLOTILLA_ACME_CA and FLOTILLA_ACME_ROOTS are right; " +
		"until it answers there are no new certificates"
	date, err := c.askAuthority(ctx, url)
	if err != nil {
		c.warn(item, remedy, "%s", plain(err))
		return
	}
	c.ok(item, "it answers")
	if !date.IsZero() && len(c.clocks) == 0 {
		// It says whole seconds, and the answer has been under way.
		c.clocks = append(c.clocks, clock{whose: "the certificate authority", ahead: time.Until(date), exact: 2 * time.Second})
	}
}

// askAuthority returns what an authority says the time is. The error does not have its URL, in
// which a password may be.
func (c *checker) askAuthority(ctx context.Context, url string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return time.Time{}, errors.New("FLOTILLA_ACME_CA is no URL")
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: c.cfg.TLS.TrustedRoots}}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s does not answer: %w", req.URL.Hostname(), err)
	}
	defer resp.Body.Close()
	var directory struct{ NewOrder string }
	err = json.NewDecoder(io.LimitReader(resp.Body, maxDirectory)).Decode(&directory)
	if resp.StatusCode != http.StatusOK || err != nil || directory.NewOrder == "" {
		return time.Time{}, fmt.Errorf("%s answers with status %d and no ACME directory", req.URL.Hostname(), resp.StatusCode)
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return time.Time{}, nil // it need not say
	}
	return date, nil
}

// domains looks where the names lead.
func (c *checker) domains(ctx context.Context) {
	for _, d := range c.o.Domains {
		item := "domain " + plaintext.Safe(d)
		if strings.HasPrefix(d, "*.") {
			c.ok(item, "it is ordered by a DNS challenge, which the program must configure; where it leads was not looked at")
			continue
		}
		ips, err := c.lookup(ctx, net.JoinHostPort(d, "443"))
		var dns *net.DNSError
		switch {
		case errors.As(err, &dns) && dns.IsNotFound:
			c.fail(item, "give it an A or AAAA record, with the floating addresses, or with those of the nodes or of a balancer", "DNS does not know it")
			continue
		case err != nil:
			c.warn(item, "see to the resolver of this machine", "it cannot be looked up: %v", err)
			continue
		}
		var elsewhere []string
		for _, ip := range ips {
			if !c.serves(ip) {
				elsewhere = append(elsewhere, ip.String())
			}
		}
		if len(elsewhere) > 0 {
			c.warn(item, "unless a balancer or another node is there, correct its records: the authority must reach a node",
				"it leads to %s, which is neither this machine, a peer, nor a floating address", strings.Join(elsewhere, ", "))
			continue
		}
		c.ok(item, "it leads to %s", strings.Trim(fmt.Sprint(ips), "[]"))
	}
}

// serves reports whether a node is known to serve, or to be meant to, at an address.
func (c *checker) serves(ip netip.Addr) bool {
	return slices.Contains(c.machine, ip) || slices.Contains(c.peerHosts, ip) ||
		slices.ContainsFunc(c.o.Addresses, func(p netip.Prefix) bool { return p.Addr() == ip })
}

// addresses checks whether this machine could have the floating addresses.
func (c *checker) addresses(context.Context) {
	for _, a := range c.o.Addresses {
		item := "address " + a.String()
		if err := vip.Check(vip.Config{Addr: a, Interface: c.o.Interface}); err != nil {
			text := strings.TrimPrefix(plain(err), "vip: ")
			c.fail(item, "see \"Floating addresses\" in docs/operations.md", "%s", text)
			continue
		}
		if c.o.Interface != "" && !inSubnet(c.o.Interface, a) {
			c.warn(item, "see that the prefix is that of the subnet, and the interface the right one",
				"%s has no address in %v, so neighbours may look for it elsewhere", c.o.Interface, a.Masked())
			continue
		}
		c.ok(item, "this machine and this user can put it in place")
	}
}

// inSubnet reports whether an interface has another address in the subnet of a.
func inSubnet(name string, a netip.Prefix) bool {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return false
	}
	addrs, err := ifi.Addrs()
	return err == nil && slices.ContainsFunc(addrs, func(x net.Addr) bool {
		n, ok := x.(*net.IPNet)
		if !ok {
			return false
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		return ok && ip.Unmap() != a.Addr() && a.Masked().Contains(ip.Unmap())
	})
}
