package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"golang.org/x/crypto/ocsp"
)

// How clients hear that a certificate has not been revoked, from those authorities that still tell: the leaf names a responder, whose
// signed answer goes along in the handshake. certmagic would ask for it while a certificate is loaded, without a deadline. So there is
// a goroutine of our own for each such leaf, and nothing waits for it. Leaves that name no responder cost nothing. What one
// node was told is in the storage, under certmagic's key, for the others.

const (
	stapleAsk    = 10 * time.Second // for one question
	stapleBytes  = 16 << 10         // of an answer, at most; most have one KiB or two
	stapleLock   = 30 * time.Second // for the lock, which another node has while it asks
	stapleLimit  = time.Minute      // for all that, and the storage
	stapleFirst  = time.Minute      // after the first failure; doubled with each
	stapleLast   = time.Hour        // at most, and between looks whether the certificate is still served
	stapleAtOnce = 16               // leaves
)

// stapler is what a certs has for OCSP staples.
type stapler struct {
	client http.Client
	turns  chan struct{} // an element for each leaf that is being worked for
	leaves sync.Map      // *stapled by the hash of the leaf
}

// stapled is a certificate in memory whose leaf names a responder.
type stapled struct {
	certmagic.Certificate
	url, key string
	answer   atomic.Pointer[ocsp.Response] // the newest; nil: there was none yet
}

// prepare makes s ready to ask. Redirects are not followed: most responders are asked without TLS, and whoever is between could send
// this node to places that only it can reach.
func (s *stapler) prepare(cfg certmagic.OCSPConfig) {
	proxy := cfg.HTTPProxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	s.turns = make(chan struct{}, stapleAtOnce)
	s.client = http.Client{
		Timeout:       stapleAsk,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{Proxy: proxy, DisableKeepAlives: true, MaxResponseHeaderBytes: stapleBytes},
	}
}

// attach returns cert with the staple that there is for it. It is called in handshakes and only reads memory.
func (s *stapler) attach(cert *tls.Certificate) *tls.Certificate {
	if cert == nil || cert.Leaf == nil || len(cert.Leaf.OCSPServer) == 0 {
		return cert
	}
	found, ok := s.leaves.Load(sha256.Sum256(cert.Leaf.Raw))
	if !ok {
		return cert
	}
	r := found.(*stapled).answer.Load()
	if r == nil || r.Status != ocsp.Good || !time.Now().Before(r.NextUpdate) {
		return cert
	}
	with := *cert
	with.OCSPStaple = r.Raw
	return &with
}

// staple sees to it that there are staples for the certificates in memory that have these names, and a responder. It does not block.
func (c *Certs) staple(names []string) {
	for _, name := range names {
		for _, x := range c.matching(name) {
			if len(x.Leaf.OCSPServer) == 0 {
				continue
			}
			url := x.Leaf.OCSPServer[0]
			if other, ok := c.config.OCSP.ResponderOverrides[url]; ok {
				url = other
			}
			if url == "" {
				continue // certmagic's way to say that it shall not be asked
			}
			s := &stapled{Certificate: x, url: url}
			if _, known := c.staples.leaves.LoadOrStore(sha256.Sum256(x.Leaf.Raw), s); !known {
				c.tasks.Go(func() { c.keepStapled(s) })
			}
		}
	}
}

// keepStapled has a staple for s as long as that is served, and forgets it then.
func (c *Certs) keepStapled(s *stapled) {
	var chain bytes.Buffer
	for _, der := range s.Certificate.Certificate.Certificate {
		chain.Write(devca.PEM("CERTIFICATE", der))
	}
	s.key = certmagic.StorageKeys.OCSPStaple(&s.Certificate, chain.Bytes())
	level, pause := slog.LevelWarn, stapleFirst
	for due := time.Now(); c.caches(&s.Certificate); {
		if now := time.Now(); !now.Before(due) {
			r, err := c.restaple(s)
			if c.life.Err() != nil {
				return
			}
			wait := pause/2 + rand.N(pause) // nodes that failed together do not try again together
			pause = min(2*pause, stapleLast)
			switch {
			case err != nil:
				c.Log.Log(c.life, level, "no new OCSP staple; will try again", "domain", s.Names[0], "error", err, "in", wait)
				level = slog.LevelDebug
			case r.Status == ocsp.Revoked:
				wait = revokedRest + rand.N(stapleFirst)
			case now.Before(half(r)):
				// The first of the nodes to look asks for all.
				wait, pause = half(r).Sub(now)+rand.N(1+r.NextUpdate.Sub(r.ThisUpdate)/8), stapleFirst
			}
			due = now.Add(wait)
		}
		select {
		case <-time.After(min(time.Until(due), stapleLast)):
		case <-c.life.Done():
			return
		}
	}
	c.staples.leaves.Delete(sha256.Sum256(s.Leaf.Raw))
	c.staple(s.Names[:1]) // it may have come back just now
}

// caches reports whether x is in memory.
func (c *Certs) caches(x *certmagic.Certificate) bool {
	return slices.ContainsFunc(c.matching(x.Names[0]), func(y certmagic.Certificate) bool { return y.Hash() == x.Hash() })
}

// half is when an answer is to be replaced.
func half(r *ocsp.Response) time.Time { return r.ThisUpdate.Add(r.NextUpdate.Sub(r.ThisUpdate) / 2) }

// restaple gets an answer for s out of the storage or, if that has none, or it is half way to its end, from the responder. One node
// asks and the others wait for it; but one that cannot have the lock, as without a leader, asks for itself.
func (c *Certs) restaple(s *stapled) (*ocsp.Response, error) {
	select {
	case c.staples.turns <- struct{}{}:
		defer func() { <-c.staples.turns }()
	case <-c.life.Done():
		return nil, c.life.Err()
	}
	ctx, cancel := context.WithTimeout(c.life, stapleLimit)
	defer cancel()
	chain := s.Certificate.Certificate.Certificate
	if len(chain) < 2 {
		return nil, errors.New("the chain has no certificate of the issuer")
	}
	issuer, err := x509.ParseCertificate(chain[1])
	if err != nil {
		return nil, fmt.Errorf("the issuer's certificate: %w", err)
	}
	if r := c.storedStaple(ctx, s, issuer); r != nil {
		return r, nil
	}
	storage, lock := c.config.Storage, keyspace.StapleLock+path.Base(s.key)
	bounded, stop := context.WithTimeout(ctx, stapleLock)
	locked := storage.Lock(bounded, lock) == nil
	stop()
	if locked {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), slotUnlock)
			defer cancel()
			storage.Unlock(ctx, lock) // one that fails ends with this node's session
		}()
		if r := c.storedStaple(ctx, s, issuer); r != nil {
			return r, nil
		}
	}
	r, err := c.askResponder(ctx, s, issuer)
	if err != nil {
		return nil, err
	}
	if news := c.take(s, r); !locked || !news && r.Status != ocsp.Revoked {
		return r, nil
	}
	if err := storage.Store(ctx, s.key, r.Raw); err != nil {
		c.Log.Debug("OCSP staple is not in the storage", "domain", s.Names[0], "error", err)
	} else if r.Status == ocsp.Revoked {
		c.replace(s, r)
	}
	return r, nil
}

// storedStaple takes what the storage has for s, and returns it if there is no need to ask. The answer that a certificate was revoked
// is there for an hour as a sign that it is being replaced.
func (c *Certs) storedStaple(ctx context.Context, s *stapled, issuer *x509.Certificate) *ocsp.Response {
	raw, err := c.config.Storage.Load(ctx, s.key)
	if err != nil {
		return nil
	}
	r, err := readStaple(raw, s.Leaf, issuer, time.Now())
	if err != nil {
		return nil // the next good one replaces it
	}
	c.take(s, r)
	if r.Status == ocsp.Revoked {
		info, err := c.config.Storage.Stat(ctx, s.key)
		if err != nil || time.Since(info.Modified) >= revokedRest {
			return nil
		}
	} else if !time.Now().Before(half(r)) {
		return nil
	}
	return r
}

// take makes r the answer unless there is a newer one, and reports whether it is news.
func (c *Certs) take(s *stapled, r *ocsp.Response) bool {
	old := s.answer.Load()
	if old != nil && (r.ThisUpdate.Before(old.ThisUpdate) || bytes.Equal(r.Raw, old.Raw)) {
		return false
	}
	s.answer.Store(r)
	if r.Status == ocsp.Revoked && (old == nil || old.Status != ocsp.Revoked) {
		c.Log.Error("certificate has been revoked by its authority", "domain", s.Names[0], "serial", s.Leaf.SerialNumber.Text(16),
			"since", r.RevokedAt, "reason", r.RevocationReason)
	}
	return true
}

// askResponder asks for s.
func (c *Certs) askResponder(ctx context.Context, s *stapled, issuer *x509.Certificate) (*ocsp.Response, error) {
	question, err := ocsp.CreateRequest(s.Leaf, issuer, nil)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	res, err := c.staples.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", s.url, res.Status)
	}
	raw, err := io.ReadAll(http.MaxBytesReader(nil, res.Body, stapleBytes))
	if err != nil {
		return nil, fmt.Errorf("the answer of %s: %w", s.url, err)
	}
	return readStaple(raw, s.Leaf, issuer, time.Now())
}

// readStaple returns the answer in raw if clients will believe it. NextUpdate is when they will no longer.
func readStaple(raw []byte, leaf, issuer *x509.Certificate, now time.Time) (*ocsp.Response, error) {
	r, err := ocsp.ParseResponseForCert(raw, leaf, issuer)
	if err != nil {
		return nil, err
	}
	if by := r.Certificate; by != nil && !by.Equal(issuer) {
		// Without this whoever has any certificate of the authority could answer (RFC 6960, 4.2.2.2).
		if !slices.Contains(by.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
			return nil, errors.New("the answer is signed by one who may not")
		}
		if by.NotAfter.Before(r.NextUpdate) {
			r.NextUpdate = by.NotAfter
		}
	}
	switch {
	case r.Status == ocsp.Unknown:
		return nil, errors.New("the responder does not know the certificate")
	case now.Before(r.ThisUpdate) || !now.Before(r.NextUpdate):
		return nil, fmt.Errorf("the answer is valid from %v to %v", r.ThisUpdate, r.NextUpdate)
	case r.NextUpdate.After(leaf.NotAfter.Add(time.Second)):
		return nil, errors.New("the answer outlives the certificate") // which some clients refuse
	}
	return r, nil
}
