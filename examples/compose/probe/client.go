package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// client returns a client that makes a new connection for each request. It connects to at, unless
// that is empty.
func client(at string, roots *x509.CertPool, timeout time.Duration) *http.Client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if at != "" {
			addr = at
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
	}}
}

// get prints the answer to one request.
func get(ctx context.Context, url, at string, roots *x509.CertPool) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client(at, roots, 5*time.Second).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.TLS != nil {
		leaf := response.TLS.PeerCertificates[0]
		fmt.Fprintf(os.Stderr, "certificate %x, issued by %s, for %v\n", leaf.SerialNumber, leaf.Issuer.CommonName, leaf.DNSNames)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", response.Status)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

// answer is the answer of a server of the example.
type answer struct {
	ServedBy string
	Client   string
	serial   string // of the certificate of the server
}

// ask requests the name of the server.
func ask(ctx context.Context, c *http.Client, url string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	response, err := c.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	var a answer
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return answer{}, err
	}
	a.serial = fmt.Sprintf("%x", response.TLS.PeerCertificates[0].SerialNumber)
	return a, nil
}

// count makes requests one after another, and prints figures as words key=value. On standard error
// it reports when a node answers for the first time.
func count(ctx context.Context, url, at string, roots *x509.CertPool, n int) error {
	c := client(at, roots, 2*time.Second)
	nodes, clients := make(map[string]bool), make(map[string]bool)
	failed := 0
	for range n {
		a, err := ask(ctx, c, url)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			fmt.Fprintln(os.Stderr, err)
		} else {
			host, _, _ := net.SplitHostPort(a.Client)
			if !nodes[a.ServedBy] {
				fmt.Fprintln(os.Stderr, a.ServedBy, "answers")
			}
			nodes[a.ServedBy], clients[host] = true, true
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Printf("requests=%d failed=%d nodes=%s clients=%s\n", n, failed, join(nodes), join(clients))
	return nil
}

func join(set map[string]bool) string { return strings.Join(slices.Sorted(maps.Keys(set)), ",") }

// httpsAt returns a client and a URL for the server of name at an address.
func httpsAt(name string, addr netip.Addr, roots *x509.CertPool, timeout time.Duration) (*http.Client, string) {
	return client(netip.AddrPortFrom(addr, 443).String(), roots, timeout), "https://" + name + "/"
}

// repeat calls f at each interval until ctx ends.
func repeat(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f()
		case <-ctx.Done():
			return
		}
	}
}

// addresses prints the addresses of all interfaces.
func addresses() error {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			fmt.Println(p.Addr())
		}
	}
	return nil
}

// lookup returns the addresses of name, sorted.
func lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, err
	}
	seen := make(map[netip.Addr]bool)
	var addrs []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); !seen[a] {
			seen[a] = true
			addrs = append(addrs, a)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, nil
}
