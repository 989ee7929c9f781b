package acmetest

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/examples/internal/process"
	"github.com/flotilla-ha/flotilla/internal/certs"
	"github.com/flotilla-ha/flotilla/internal/clocks"
)

// rekeyAddress is an address that no other test of the package listens at.
const rekeyAddress = "127.0.0.77"

// All keys are replaced: a real authority takes the new key of the account, and refuses the old
// one. It issues another certificate, and revokes the old one because its key is known to others.
func TestRekey(t *testing.T) {
	t.Parallel()
	const name = "rekey." + zone
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	ln, err := net.Listen("tcp", rekeyAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	plain, err := net.Listen("tcp", rekeyAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	ca := newAuthority(t, portOf(plain), portOf(ln), func(string) []net.IP { return []net.IP{net.ParseIP(rekeyAddress)} })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca.Endpoint))
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c, err := certs.New(certs.Config{
		Policy:  certs.Policy{CA: ca.URL, Email: "me@" + zone, TrustedRoots: roots},
		Storage: storage, Ready: func(context.Context) error { return nil }, Clocks: clocks.New(clocks.Config{Log: log}), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cfg, err := c.TLSConfig(name)
	if err != nil {
		t.Fatal(err)
	}
	for l, h := range map[net.Listener]http.Handler{tls.NewListener(ln, cfg): http.NotFoundHandler(), plain: c.HTTPHandler(nil)} {
		srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		defer srv.Close()
		go srv.Serve(l) // ends with Close
	}
	shake := func() (*x509.Certificate, error) {
		conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{ServerName: name, RootCAs: ca.roots})
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0], nil
	}
	var old *x509.Certificate
	if err := process.Await(t.Context(), waitLimit, func(context.Context) (err error) {
		old, err = shake()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	account, key := accountIn(t, storage)

	// The storage does not tell the node what was stored, so the node is told here.
	stop := make(chan struct{})
	told := make(chan struct{})
	go func() {
		defer close(told)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				c.StoredAny()
				if _, err := shake(); err != nil {
					t.Errorf("a handshake fails: %v", err)
					return
				}
			}
		}
	}()
	if err := c.Rekey(t.Context(), "17"); err != nil {
		t.Error(err)
	}
	close(stop)
	<-told

	p, err := c.RekeyProgress(t.Context(), "17")
	if err != nil || !p.Done || p.RolledOver != 1 || p.Rekeyed != 1 || p.Revoked != 1 {
		t.Errorf("progress: %+v, %v", p, err)
	}
	revoked := ca.Store.GetRevokedCertificateBySerial(old.SerialNumber)
	if revoked == nil || revoked.Reason == nil || *revoked.Reason != acme.ReasonKeyCompromise {
		t.Errorf("the authority says of the old certificate: %+v", revoked)
	}
	leaf, err := shake()
	if err != nil || leaf.Equal(old) || string(leaf.RawSubjectPublicKeyInfo) == string(old.RawSubjectPublicKeyInfo) {
		t.Fatalf("after that the old certificate or key is served (%v)", err)
	}
	if ca.Store.GetRevokedCertificateBySerial(leaf.SerialNumber) != nil {
		t.Error("the new certificate is revoked")
	}
	now, fresh := accountIn(t, storage)
	if now.Location != account.Location || ca.accounts.Load() != 1 {
		t.Errorf("the account was %s and is %s; %d were opened", account.Location, now.Location, ca.accounts.Load())
	}
	client := &acme.Client{Directory: ca.URL, HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}}
	if a, err := client.GetAccount(t.Context(), acme.Account{PrivateKey: fresh}); err != nil || a.Location != account.Location {
		t.Errorf("the new key: %+v, %v", a, err)
	}
	if _, err := client.GetAccount(t.Context(), acme.Account{PrivateKey: key}); err == nil || !strings.Contains(err.Error(), acme.ProblemTypeAccountDoesNotExist) {
		t.Errorf("the authority knows the old key: %v", err)
	}
	if text := whole(t, storage); strings.Contains(text, pemLine(t, key)) {
		t.Error("the old key of the account is in the storage")
	}
}

func portOf(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }

// accountIn returns the only account in a storage.
func accountIn(t *testing.T, storage certmagic.Storage) (acme.Account, crypto.Signer) {
	t.Helper()
	keys, err := storage.List(t.Context(), "acme", true)
	if err != nil {
		t.Fatal(err)
	}
	var a acme.Account
	for _, k := range keys {
		value, err := storage.Load(t.Context(), k)
		if err != nil || !strings.Contains(k, "/users/") {
			continue // a directory, or another record
		}
		switch path.Ext(k) {
		case ".json":
			err = json.Unmarshal(value, &a)
		case ".key":
			a.PrivateKey, err = certmagic.PEMDecodePrivateKey(value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return a, a.PrivateKey
}

// whole returns all records of a storage.
func whole(t *testing.T, storage certmagic.Storage) string {
	t.Helper()
	keys, err := storage.List(t.Context(), "", true)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, k := range keys {
		if value, err := storage.Load(t.Context(), k); err == nil {
			all.Write(value)
		}
	}
	return all.String()
}

// pemLine returns the last line of a private key that has some of it.
func pemLine(t *testing.T, key crypto.Signer) string {
	t.Helper()
	text, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-2]
}
