package acmetest

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// Where Pebble takes what is counted. They are not constants that Pebble exports; a test that expects a number above zero fails
// if they change.
const (
	newAccountPath = "/sign-me-up"
	newOrderPath   = "/order-plz"
	finalizePath   = "/finalize-order/" // and an ID
	ariPath        = "/renewalInfo/"    // in the middle of it
)

// ariRetryAfter is how long clients are told to keep ARI. Pebble says six hours.
const ariRetryAfter = time.Second

// authority is a certificate authority, Pebble in this process, with a name server that it asks.
type authority struct {
	url      string         // of the ACME directory
	endpoint string         // PEM of the certificate that the directory is served with
	roots    *x509.CertPool // of the certificates that it issues
	dns      string         // address of the name server

	requests, accounts, orders, issued atomic.Int64 // that have come, that it has opened, accepted, and certificates

	store *db.MemoryStore

	mu    sync.Mutex
	where func(name string) []net.IP // asked for the addresses of a name
	asked map[string]int             // how often, by name
	texts []*dns.TXT                 // that nodes have put into the zone
}

// newAuthority starts an authority that finds HTTP and TLS at these ports of the addresses that where returns. It lives as long
// as the test.
func newAuthority(t *testing.T, httpPort, tlsPort int, where func(name string) []net.IP) *authority {
	t.Helper()
	a := &authority{store: db.NewMemoryStore(), where: where, asked: make(map[string]int)}
	logger := log.New(io.Discard, "", 0)
	profiles := map[string]ca.Profile{"default": {Description: "90 days", ValidityPeriod: 90 * 24 * 3600}}
	issuer := ca.New(logger, a.store, "", "ecdsa", 0, 1, profiles)
	a.dns = a.serveDNS(t)
	validator := va.New(logger, httpPort, tlsPort, true, a.dns, a.store)
	front := wfe.New(logger, a.store, validator, issuer, []string{"pebble.test"}, true, false, 0, 0)

	srv := httptest.NewUnstartedServer(a.front(front.Handler()))
	srv.Config.ErrorLog = logger // killed nodes do not say goodbye
	srv.StartTLS()
	t.Cleanup(srv.Close)
	a.url = srv.URL + wfe.DirectoryPath
	a.endpoint = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	a.roots = x509.NewCertPool()
	a.roots.AddCert(issuer.GetRootCert(0).Cert)
	return a
}

// front counts what h does, by its own answers, and changes how long clients keep ARI.
func (a *authority) front(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.requests.Add(1)
		h.ServeHTTP(&frontWriter{ResponseWriter: w, headed: func(status int) {
			switch {
			case strings.Contains(r.URL.Path, ariPath):
				w.Header().Set("Retry-After", fmt.Sprint(int(ariRetryAfter/time.Second)))
			case status == http.StatusCreated && r.URL.Path == newAccountPath:
				a.accounts.Add(1)
			case status == http.StatusCreated && r.URL.Path == newOrderPath:
				a.orders.Add(1)
			case status == http.StatusOK && strings.HasPrefix(r.URL.Path, finalizePath):
				a.issued.Add(1)
			}
		}}, r)
	})
}

// frontWriter calls headed before the header is written.
type frontWriter struct {
	http.ResponseWriter
	headed func(status int)
	done   bool
}

func (w *frontWriter) WriteHeader(status int) {
	if !w.done {
		w.done = true
		w.headed(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *frontWriter) Write(p []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// resolve makes where answer from now on.
func (a *authority) resolve(where func(name string) []net.IP) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.where = where
}

// renewNow makes the authority say, to whoever asks, that the certificate should have been renewed an hour ago.
func (a *authority) renewNow(serial *big.Int) error {
	at := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339) }
	return a.store.SetARIResponse(serial, fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, at(2*time.Hour), at(time.Hour)))
}

// serveDNS answers DNS questions, over TCP, which is how Pebble asks, and over UDP, and returns the address. One address is given at a
// time, each in its turn, as Pebble takes the first of several. It lets anybody update the zone.
func (a *authority) serveDNS(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(question)
		if question.Opcode == dns.OpcodeUpdate {
			a.update(question.Ns)
		} else {
			for _, q := range question.Question {
				answer.Answer = append(answer.Answer, a.records(q)...)
			}
			if len(answer.Answer) == 0 {
				answer.Rcode = dns.RcodeNameError
			}
		}
		w.WriteMsg(answer) // who asks asks again if the connection is gone
	})
	accept := func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept } // updates are not accepted otherwise
	for _, srv := range []*dns.Server{{Listener: ln}, {PacketConn: udp}} {
		srv.ReadTimeout, srv.Handler, srv.MsgAcceptFunc = 5*time.Second, handler, accept
		go srv.ActivateAndServe() // ends with what it listens at
	}
	t.Cleanup(func() {
		ln.Close()
		udp.Close()
	})
	return ln.Addr().String()
}

// records returns the answers to one question.
func (a *authority) records(q dns.Question) []dns.RR {
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
	var all []dns.RR
	switch q.Qtype {
	case dns.TypeA:
		if ip := a.next(name); ip != nil {
			all = append(all, &dns.A{Hdr: header, A: ip})
		}
	case dns.TypeSOA:
		if name == zone {
			all = append(all, &dns.SOA{Hdr: header, Ns: "ns." + zone + ".", Mbox: "admin." + zone + "."})
		}
	case dns.TypeTXT:
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, txt := range a.texts {
			if strings.EqualFold(txt.Hdr.Name, q.Name) {
				all = append(all, txt)
			}
		}
	}
	return all
}

// update puts TXT records into the zone, and takes those out again that are sent with class NONE (RFC 2136).
func (a *authority) update(changes []dns.RR) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, rr := range changes {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		if txt.Hdr.Class == dns.ClassINET {
			a.texts = append(a.texts, txt)
			continue
		}
		a.texts = slices.DeleteFunc(a.texts, func(old *dns.TXT) bool {
			return old.Hdr.Name == txt.Hdr.Name && slices.Equal(old.Txt, txt.Txt)
		})
	}
}

// next returns the next address of name, nil if it has none.
func (a *authority) next(name string) net.IP {
	a.mu.Lock()
	where := a.where
	a.mu.Unlock()
	ips := where(name)
	if len(ips) == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[name]++
	return ips[a.asked[name]%len(ips)]
}
