package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// newOrderPath is the path of Pebble for orders. Pebble does not export it. If it changes, a test
// that expects an order fails.
const newOrderPath = "/order-plz"

// Authority is an ACME certificate authority, Pebble, in this process, with a name server. It
// validates a name by three connections to it at once.
type Authority struct {
	URL      string            // of the ACME directory
	Endpoint string            // PEM of the certificate of the directory
	Root     *x509.Certificate // of its certificates
	DNS      string            // address of the name server, which accepts updates for DNS-01
	Orders   atomic.Int64      // that it has accepted
	Store    *db.MemoryStore   // Pebble's records

	srv     *http.Server
	names   *nameServer
	serials *serials
}

// StartAuthority starts an authority. The function where returns the address of a name, or nil if
// the name does not exist. The authority finds HTTP and TLS at these ports of the address. It logs
// to logTo. If front is not nil, it wraps the handler of Pebble.
func StartAuthority(
	httpPort, tlsPort int, where func(name string) net.IP, logTo io.Writer, front func(http.Handler) http.Handler,
) (*Authority, error) {
	// Pebble makes life hard for clients: it waits at random, refuses good nonces, and skips
	// validations that it has made before. These variables switch that off. Pebble reads them when
	// it is made.
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
	cert, err := SelfSigned()
	if err != nil {
		return nil, err
	}
	names, err := newNameServer(where)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		names.close()
		return nil, err
	}
	logger := log.New(logTo, "", 0)
	store := db.NewMemoryStore()
	profiles := map[string]ca.Profile{"default": {Description: "90 days", ValidityPeriod: 90 * 24 * 3600}}
	issuer := ca.New(logger, store, "", "ecdsa", 0, 1, profiles)
	validator := va.New(logger, httpPort, tlsPort, true, names.addr, store)
	endpoint := wfe.New(logger, store, validator, issuer, []string{"pebble.test"}, true, false, 0, 0)

	a := &Authority{
		URL:      "https://" + ln.Addr().String() + wfe.DirectoryPath,
		Endpoint: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})),
		Root:     issuer.GetRootCert(0).Cert,
		Store:    store,
		DNS:      names.addr,
		names:    names,
		serials:  &serials{store: store},
	}
	handler := a.count(endpoint.Handler())
	if front != nil {
		handler = front(handler)
	}
	// ACME signs the URL of each request, and Pebble accepts only https in it. So the endpoint uses
	// TLS, even on loopback.
	a.srv = &http.Server{Handler: handler, ErrorLog: logger, ReadHeaderTimeout: 5 * time.Second}
	// It ends with Close.
	go a.srv.Serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}}))
	return a, nil
}

// Close ends the authority and its name server.
func (a *Authority) Close() {
	a.srv.Close()
	a.names.close()
}

// Texts returns the number of TXT records in the zone.
func (a *Authority) Texts() int { return a.names.count() }

// count counts the orders that h accepts: it answers 201 Created (RFC 8555, section 7.4).
func (a *Authority) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != newOrderPath {
			h.ServeHTTP(w, r)
			return
		}
		a.serials.update()
		cw := &statusWriter{ResponseWriter: w}
		h.ServeHTTP(cw, r)
		if cw.status == http.StatusCreated {
			a.Orders.Add(1)
			a.serials.add(w.Header().Get("Location"))
		}
	})
}

// statusWriter records the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// SelfSigned makes an ECDSA certificate for 127.0.0.1 that is valid for a day.
func SelfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "ACME endpoint"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
