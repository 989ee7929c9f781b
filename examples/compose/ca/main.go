// Command ca stands for the outside world in the compose example. It is an ACME certificate
// authority, Pebble, and a name server that knows the addresses of the domain. In production you
// use Let's Encrypt and your DNS provider.
//
//	ca -name api.flotilla.test=198.18.0.101,198.18.0.102
//	ca root     prints the roots of the certificates that it has issued
//
// Like any authority it connects to the addresses of a name before it issues a certificate. It
// forgets everything when it ends, and has another root the next time: Pebble is for tests. The
// certificate of its own endpoint stays the same, because the nodes read it once, when they start.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	pebble "github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

func main() {
	log.SetFlags(0)
	names := make(zone)
	flag.Func("name", "a domain and its addresses, `name=address,address`; may be repeated", names.add)
	listen := flag.String("listen", ":14000", "the address at which nodes ask for certificates, by https")
	resolver := flag.String("dns", ":53", "the address of the name server, for clients and the authority")
	host := flag.String("host", "ca", "the name by which nodes know this machine")
	private := flag.String("private", "/private", "the directory for secret files")
	public := flag.String("public", "/trust", "the directory for certificates that others should trust: acme.pem and root.pem")
	flag.Parse()
	root := filepath.Join(*public, "root.pem")
	if flag.Arg(0) == "root" {
		all, err := os.ReadFile(root)
		if err != nil {
			log.Fatal(err)
		}
		os.Stdout.Write(all)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	endpoint, err := identity(*private, *host)
	if err != nil {
		log.Fatal(err)
	}
	if err := replace(filepath.Join(*public, "acme.pem"), text(endpoint.Leaf), 0o644); err != nil {
		log.Fatal(err)
	}
	asked, err := names.serve(*resolver)
	if err != nil {
		log.Fatal(err)
	}
	handler, issuer, err := authority(asked)
	if err != nil {
		log.Fatal(err)
	}
	// Earlier certificates are valid until they are renewed, so their roots stay.
	before, err := os.ReadFile(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Fatal(err)
	}
	if err := replace(root, append(text(issuer), before...), 0o644); err != nil {
		log.Fatal(err)
	}
	// ACME signs the URL of each request, and Pebble accepts only https in it.
	server := &http.Server{
		Addr: *listen, Handler: handler, ReadHeaderTimeout: 5 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{endpoint}},
	}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServeTLS("", ""); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// authority returns Pebble, which uses the name server at the resolver address, and the root of its
// certificates.
func authority(resolver string) (http.Handler, *x509.Certificate, error) {
	// Pebble makes life hard for clients: it waits at random and refuses good nonces. These
	// variables switch that off.
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"} {
		if err := os.Setenv(name, value); err != nil {
			return nil, nil, err
		}
	}
	logger := log.New(os.Stderr, "", log.LstdFlags)
	store := db.NewMemoryStore()
	profiles := map[string]pebble.Profile{"default": {Description: "90 days", ValidityPeriod: 90 * 24 * 3600}}
	issuer := pebble.New(logger, store, "", "ecdsa", 0, 1, profiles)
	validator := va.New(logger, 80, 443, true, resolver, store)
	front := wfe.New(logger, store, validator, issuer, []string{"flotilla.test"}, true, false, 0, 0)
	return front.Handler(), issuer.GetRootCert(0).Cert, nil
}

// identity returns the certificate of the endpoint. It makes one if there is none in dir.
func identity(dir, host string) (tls.Certificate, error) {
	file := filepath.Join(dir, "endpoint.pem") // key and certificate
	both, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if both, err = selfSigned(host); err == nil {
			err = replace(file, both, 0o600)
		}
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(both, both)
}

// selfSigned makes a certificate for host that is valid for ten years.
func selfSigned(host string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "ACME endpoint"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{host, "localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	both := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return append(both, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...), nil
}

// text returns a certificate as PEM.
func text(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// replace writes a file atomically.
func replace(file string, content []byte, mode fs.FileMode) error {
	if err := os.WriteFile(file+".new", content, mode); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// add parses a value of the flag -name.
func (z zone) add(text string) error {
	name, list, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is not name=address,address", text)
	}
	for _, a := range strings.Split(list, ",") {
		ip := net.ParseIP(a)
		if ip == nil {
			return fmt.Errorf("%q is not an address", a)
		}
		z[name] = append(z[name], ip)
	}
	return nil
}
