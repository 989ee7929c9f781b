// Command probe is a client of the compose example, for people and for smoke.sh.
//
//	probe get [-roots FILE] [-at ADDRESS] URL
//	    makes one request, and prints the answer and the certificate
//	probe count [-roots FILE] [-at ADDRESS] [-n NUMBER] URL
//	    makes many requests, and prints which nodes answered and which address of the client they saw
//	probe watch [-roots FILE] NAME
//	    asks all addresses of NAME until it is interrupted, and prints when another node answers there
//	probe measure [-roots FILE] NAME
//	    does the same for programs, with commands on standard input: see measure.go
//	probe addresses
//	    prints the IP addresses of this machine, one per line
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: probe get|count|watch|measure|addresses")
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	rootFile := flags.String("roots", "", "`file` with the certificates to trust; empty: those of the system")
	at := flags.String("at", "", "host:port to connect to, instead of the addresses of the name; for get and count")
	number := flags.Int("n", 60, "the number of requests; for count")
	every := flags.Duration("every", 10*time.Millisecond, "the time between two requests to an address; for measure")
	flags.Parse(args[1:])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if args[0] == "addresses" {
		return addresses()
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("usage: probe %s [flags] NAME", args[0])
	}
	var roots *x509.CertPool
	if *rootFile != "" {
		text, err := os.ReadFile(*rootFile)
		if err != nil {
			return err
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s has no certificate", *rootFile)
		}
	}
	switch args[0] {
	case "get":
		return get(ctx, flags.Arg(0), *at, roots)
	case "count":
		return count(ctx, flags.Arg(0), *at, roots, *number)
	case "watch":
		return watch(ctx, flags.Arg(0), roots)
	case "measure":
		return measure(ctx, flags.Arg(0), roots, *every)
	}
	return fmt.Errorf("there is no command %q", args[0])
}

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
