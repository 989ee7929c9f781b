package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// newOrderPath is where Pebble takes orders. It is not a constant that Pebble exports; startCA asks the directory whether it
// still holds.
const newOrderPath = "/order-plz"

// authority is a certificate authority that speaks ACME: Pebble, in this process. It proves that an applicant has the name by
// connecting to it, three times at once, through the balancer like anybody else.
type authority struct {
	url      string            // of the ACME directory
	endpoint string            // PEM of the certificate that the directory is served with
	root     *x509.Certificate // of the certificates that it issues
	orders   atomic.Int64      // orders it has accepted

	srv     *http.Server
	stopDNS func()
}

// startCA starts an authority that finds domain at 127.0.0.1, with HTTP and TLS at these ports.
func startCA(domain string, httpPort, tlsPort int, logTo io.Writer) (*authority, error) {
	// Pebble is made to be hard on its clients: it waits at random, refuses good nonces, skips proofs that it has seen before.
	// This is where it is told not to; it reads these when it is made.
	for name, value := range map[string]string{
		"PEBBLE_VA_NOSLEEP":      "1",
		"PEBBLE_WFE_NONCEREJECT": "0",
		"PEBBLE_AUTHZREUSE":      "0",
		"PEBBLE_VA_ALWAYS_VALID": "0",
	} {
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	resolver, stopDNS, err := startDNS(domain)
	if err != nil {
		return nil, err
	}
	logger := log.New(logTo, "", 0)
	store := db.NewMemoryStore()
	profiles := map[string]ca.Profile{"default": {Description: "90 days", ValidityPeriod: 90 * 24 * 3600}}
	issuer := ca.New(logger, store, "", "ecdsa", 0, 1, profiles)
	validator := va.New(logger, httpPort, tlsPort, true, resolver, store)
	front := wfe.New(logger, store, validator, issuer, []string{"pebble.test"}, true, false, 0, 0)

	a := &authority{root: issuer.GetRootCert(0).Cert, stopDNS: stopDNS}
	cert, leaf, err := selfSigned()
	if err != nil {
		stopDNS()
		return nil, err
	}
	a.endpoint = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		stopDNS()
		return nil, err
	}
	a.url = "https://" + ln.Addr().String() + wfe.DirectoryPath
	// ACME signs the URL of each request, and Pebble accepts only https in it: the endpoint has to be TLS, on loopback too.
	a.srv = &http.Server{Handler: a.count(front.Handler()), ErrorLog: logger, ReadHeaderTimeout: 5 * time.Second}
	go a.srv.Serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}}))

	if err := a.check(leaf); err != nil {
		a.close()
		return nil, fmt.Errorf("the certificate authority does not answer: %w", err)
	}
	return a, nil
}

func (a *authority) close() {
	a.srv.Close()
	a.stopDNS()
}

// count counts the orders that h accepts, by its own answers: RFC 8555, section 7.4, says 201 Created.
func (a *authority) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != newOrderPath {
			h.ServeHTTP(w, r)
			return
		}
		cw := &statusWriter{ResponseWriter: w}
		h.ServeHTTP(cw, r)
		if cw.status == http.StatusCreated {
			a.orders.Add(1)
		}
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// check asks the directory where orders go: a count of another path would be 0 for ever.
func (a *authority) check(leaf *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	resp, err := client.Get(a.url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if !strings.Contains(string(body), newOrderPath+`"`) {
		return fmt.Errorf("this Pebble does not take orders at %s", newOrderPath)
	}
	return nil
}

// selfSigned makes a certificate for 127.0.0.1.
func selfSigned() (tls.Certificate, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "quickstart ACME endpoint"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, leaf, err
}
