package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/rekey"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

const rekeyEmail = "me@a.example"

// rekeyWorld is a cluster whose keys somebody knows.
type rekeyWorld struct {
	t       *testing.T
	ca      *testca.Authority
	storage *memStorage
	nodes   []*Certs
	configs []*tls.Config
	log     testlog.Buffer

	secrets map[string]string                         // a line of each private key, to what it is of
	leaves  map[string]*x509.Certificate              // the certificates of before, by name
	account string                                    // where the account's key is in the storage
	more    func(*certmagic.Config)                   // configures each node; nil: nothing
	wrap    func(http.RoundTripper) http.RoundTripper // of the next node; nil: nothing
}

func newRekeyWorld(t *testing.T) *rekeyWorld {
	t.Helper()
	return &rekeyWorld{t: t, ca: testca.New(t, testca.Config{Trusting: true}), storage: newMemStorage()}
}

// open adds a node over storage that serves names.
func (w *rekeyWorld) open(storage certmagic.Storage, names ...string) *Certs {
	w.t.Helper()
	wrap := w.wrap
	c, err := openCerts(Policy{CA: w.ca.URL(), Email: rekeyEmail, Configure: func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
		stubca.Configure(w.ca, w.more)(cfg, i)
		if wrap != nil {
			client := backoff.HTTPClientOf(i)
			client.Transport = wrap(client.Transport)
		}
	}}, storage, false, always, testlog.To(&w.log, slog.LevelInfo), offline)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	w.nodes = append(w.nodes, c)
	w.storage.notify(w.nodes...)
	cfg, err := c.TLSConfig(names...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.configs = append(w.configs, cfg)
	return c
}

// leak records all private keys of the storage, and its certificates.
func (w *rekeyWorld) leak() {
	w.t.Helper()
	w.secrets, w.leaves = make(map[string]string), make(map[string]*x509.Certificate)
	w.storage.mu.Lock()
	defer w.storage.mu.Unlock()
	for key, value := range w.storage.data {
		lines := strings.Split(strings.ReplaceAll(string(value), `\n`, "\n"), "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "-----END ") && strings.Contains(line, "PRIVATE KEY") {
				w.secrets[lines[i-1]] = key
			}
		}
		switch {
		case strings.HasPrefix(key, "acme/") && path.Ext(key) == ".key":
			w.account = key
		case strings.HasPrefix(key, "certificates/") && path.Ext(key) == ".crt":
			block, _ := pem.Decode(value)
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				w.t.Fatal(err)
			}
			w.leaves[leaf.DNSNames[0]] = leaf
		}
	}
}

// watch makes handshakes for names with a node, again and again, and fails the test if one shows no
// certificate. stop ends it.
func (w *rekeyWorld) watch(node int, every time.Duration, names ...string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			for _, name := range names {
				if testtls.Serial(w.configs[node], name) == "" {
					w.t.Errorf("node %d shows no certificate for %s", node, name)
				}
			}
			select {
			case <-time.After(every):
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// rekey has the keys replaced by a node, and fails the test unless that ends in two days.
func (w *rekeyWorld) rekey(c *Certs, id string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 48*time.Hour)
	defer cancel()
	if err := c.Rekey(ctx, id); err != nil {
		w.t.Errorf("%v\n%s", err, strings.Join(w.progress(id).Trouble, "\n"))
	}
}

// accountKey returns the key of the account as the storage has it.
func (w *rekeyWorld) accountKey() []byte {
	w.storage.mu.Lock()
	defer w.storage.mu.Unlock()
	return slices.Clone(w.storage.data[w.account])
}

// check fails the test unless nothing of before is worth anything: every certificate is revoked or
// has expired, and no old key is in the storage. Names in renewed have a certificate with another
// key, which all nodes serve, the others have none.
func (w *rekeyWorld) check(id string, renewed ...string) {
	w.t.Helper()
	for name, old := range w.leaves {
		serial := old.SerialNumber.Text(16)
		r, ok := w.ca.Revoked(serial)
		if expired := time.Now().After(old.NotAfter); !expired && (!ok || r.Reason != 1) || expired && ok {
			w.t.Errorf("%s: expired %v, revoked %v for the reason %d", name, expired, ok, r.Reason)
		}
		if !slices.Contains(renewed, name) {
			if w.storage.has(certmagic.StorageKeys.CertsSitePrefix(w.issuer(), name) + "/") {
				w.t.Errorf("%s is still in the storage", name)
			}
			continue
		}
		text, err := w.storage.Load(w.t.Context(), certmagic.StorageKeys.SiteCert(w.issuer(), name))
		if err != nil {
			w.t.Errorf("%s: %v", name, err)
			continue
		}
		block, _ := pem.Decode(text)
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			w.t.Fatal(err)
		}
		if bytes.Equal(leaf.RawSubjectPublicKeyInfo, old.RawSubjectPublicKeyInfo) {
			w.t.Errorf("%s has the old key", name)
		}
		if _, ok := w.ca.Revoked(leaf.SerialNumber.Text(16)); ok {
			w.t.Errorf("%s: the new certificate is revoked", name)
		}
		for i, cfg := range w.configs {
			if cfg == nil {
				continue // the node is dead
			}
			if got := testtls.Serial(cfg, name); got != leaf.SerialNumber.Text(16) {
				w.t.Errorf("node %d shows %s for %s, the storage has %s, the old one is %s", i, got, name, leaf.SerialNumber.Text(16), serial)
			}
		}
	}
	w.checkSecrets(id)
}

// checkSecrets fails the test if an old key is in use, or left.
func (w *rekeyWorld) checkSecrets(id string) {
	w.t.Helper()
	if w.account != "" {
		key, err := certmagic.PEMDecodePrivateKey(w.accountKey())
		if err != nil {
			w.t.Fatal(err)
		}
		if !w.ca.Knows(key) || w.ca.Live() != 1 {
			w.t.Errorf("the account of the storage is known: %v; %d accounts live", w.ca.Knows(key), w.ca.Live())
		}
	}
	w.storage.mu.Lock()
	defer w.storage.mu.Unlock()
	for key, value := range w.storage.data {
		for line, of := range w.secrets {
			if strings.Contains(string(value), line) {
				w.t.Errorf("%s holds the old key of %s", key, of)
			}
		}
		if strings.HasPrefix(key, rekey.Place) && key != rekey.Place+"/"+id+"/plan.json" {
			w.t.Errorf("%s is left", key)
		}
	}
}

func (w *rekeyWorld) issuer() string { return acmeIssuer(w.nodes[0]).IssuerKey() }

// progress returns how far the re-keying is, as the last node sees it.
func (w *rekeyWorld) progress(id string) RekeyProgress {
	w.t.Helper()
	p, err := w.nodes[len(w.nodes)-1].RekeyProgress(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	p.Notes = nil
	return p
}

var errDead = errors.New("the process is dead")

// mortal is the storage of a node whose process dies at some moment: from then on each call fails,
// and its locks are free.
type mortal struct {
	*memStorage
	die func() // is called at death

	mu    sync.Mutex
	armed bool
	left  int  // calls that change something until death
	after bool // the last of them takes effect
	dead  bool
	held  map[string]bool
}

func newMortal(s *memStorage) *mortal { return &mortal{memStorage: s, held: make(map[string]bool)} }

// live does a call that changes something, here or at the authority.
func (m *mortal) live(do func() error) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errDead
	}
	dies := m.armed && m.left == 0
	m.left--
	m.dead = dies
	after := m.after
	m.mu.Unlock()
	if !dies {
		return do()
	}
	if after {
		do()
	}
	m.end()
	return errDead
}

// end gives up what the dead process has held.
func (m *mortal) end() {
	m.memStorage.mu.Lock()
	for key := range m.memStorage.parts {
		site, _ := keyspace.BundlePart(key)
		for lock := range m.held {
			if name, ok := strings.CutPrefix(lock, keyspace.IssueLock); ok && certmagic.StorageKeys.Safe(name) == site {
				delete(m.memStorage.parts, key)
			}
		}
	}
	m.memStorage.mu.Unlock()
	m.mu.Lock()
	held := slices.Collect(maps.Keys(m.held))
	clear(m.held)
	m.mu.Unlock()
	for _, lock := range held {
		m.memStorage.Unlock(context.Background(), lock)
	}
	m.die()
}

func (m *mortal) gone() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errDead
	}
	return nil
}

func (m *mortal) Store(ctx context.Context, key string, value []byte) error {
	return m.live(func() error { return m.memStorage.Store(ctx, key, value) })
}

func (m *mortal) Delete(ctx context.Context, key string) error {
	return m.live(func() error { return m.memStorage.Delete(ctx, key) })
}

func (m *mortal) Load(ctx context.Context, key string) ([]byte, error) {
	if err := m.gone(); err != nil {
		return nil, err
	}
	return m.memStorage.Load(ctx, key)
}

func (m *mortal) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	if err := m.gone(); err != nil {
		return nil, err
	}
	return m.memStorage.List(ctx, dir, recursive)
}

func (m *mortal) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	if err := m.gone(); err != nil {
		return certmagic.KeyInfo{}, err
	}
	return m.memStorage.Stat(ctx, key)
}

func (m *mortal) Lock(ctx context.Context, name string) error {
	if err := m.gone(); err != nil {
		return err
	}
	err := m.memStorage.Lock(ctx, name)
	return m.keep(err == nil, name, err)
}

func (m *mortal) TryLock(ctx context.Context, name string) (bool, error) {
	if err := m.gone(); err != nil {
		return false, err
	}
	held, err := m.memStorage.TryLock(ctx, name)
	err = m.keep(held, name, err)
	return held && err == nil, err
}

// keep records a lock that was taken, and gives it back if the process has died meanwhile.
func (m *mortal) keep(held bool, name string, err error) error {
	m.mu.Lock()
	dead := m.dead
	if held && !dead {
		m.held[name] = true
	}
	m.mu.Unlock()
	if held && dead {
		m.memStorage.Unlock(context.Background(), name)
		return errDead
	}
	return err
}

func (m *mortal) Unlock(ctx context.Context, name string) error {
	m.mu.Lock()
	held := m.held[name]
	delete(m.held, name)
	m.mu.Unlock()
	if !held {
		return errDead
	}
	return m.memStorage.Unlock(ctx, name)
}

// transport counts the requests of the process as calls.
func (m *mortal) transport(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (res *http.Response, err error) {
		err = m.live(func() error {
			res, err = next.RoundTrip(r)
			return err
		})
		return res, err
	})
}
