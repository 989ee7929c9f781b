package staple

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/crypto/ocsp"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

// Times of staples.
const (
	LockTimeout = 30 * time.Second // to wait for the lock, which another node has while it asks
	// between tries, and between looks whether the certificate is still served
	MaxPause    = time.Hour
	RevokedRest = time.Hour // between two tries of the cluster to replace a revoked certificate

	askTimeout    = 10 * time.Second // for one question
	timeout       = time.Minute      // for question, lock and storage
	unlockTimeout = 5 * time.Second
	firstPause    = time.Minute // after the first failure; doubled with each
	maxBytes      = 16 << 10    // of an answer; most have one KiB or two
	maxAtOnce     = 16          // leaves
)

// Config is what a stapler needs.
type Config struct {
	Storage  certmagic.Storage                         // of answers, and the lock to ask
	OCSP     certmagic.OCSPConfig                      // proxy, and other responders to ask
	Matching func(name string) []certmagic.Certificate // returns the certificates in memory for name
	// Revoked is called for a revoked certificate by the node that has the lock. It may block.
	Revoked func(certmagic.Certificate, *ocsp.Response)
	Network http.RoundTripper // for questions; nil: the real one
	Log     *slog.Logger      // required
}

// Stapler keeps staples for the certificates in memory. Its methods are safe for concurrent use.
type Stapler struct {
	Config
	client http.Client
	slots  chan struct{} // holds an element for each leaf that is being worked on
	leaves sync.Map      // *stapled by the hash of the leaf

	life  context.Context // ends with Close
	end   context.CancelFunc
	tasks notify.Tasks
}

// New returns a stapler. Redirects of responders are not followed: most responders are asked
// without TLS, and anybody on the path could send this node to places that only it can reach.
func New(cfg Config) *Stapler {
	proxy := cfg.OCSP.HTTPProxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	if cfg.Network == nil {
		cfg.Network = &http.Transport{Proxy: proxy, DisableKeepAlives: true, MaxResponseHeaderBytes: maxBytes}
	}
	s := &Stapler{Config: cfg, slots: make(chan struct{}, maxAtOnce), client: http.Client{
		Timeout:       askTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     cfg.Network,
	}}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Close ends all work and waits for it. Staples in memory are still attached.
func (s *Stapler) Close() {
	s.end()
	s.tasks.Close()
}

// stapled is a certificate in memory whose leaf names a responder.
type stapled struct {
	certmagic.Certificate
	url, key string
	answer   atomic.Pointer[ocsp.Response] // the newest; nil: there was none yet
}

// Attach returns cert with its staple, if there is one. It only reads memory, for handshakes.
func (s *Stapler) Attach(cert *tls.Certificate) *tls.Certificate {
	if cert == nil || cert.Leaf == nil || len(cert.Leaf.OCSPServer) == 0 {
		return cert
	}
	found, ok := s.leaves.Load(sha256.Sum256(cert.Leaf.Raw))
	if !ok {
		return cert
	}
	r := found.(*stapled).valid()
	if r == nil {
		return cert
	}
	with := *cert
	with.OCSPStaple = r.Raw
	return &with
}

// NextUpdate returns until when the staple of a certificate is valid, zero if it has none.
func (s *Stapler) NextUpdate(leaf *x509.Certificate) time.Time {
	if len(leaf.OCSPServer) == 0 {
		return time.Time{}
	}
	found, ok := s.leaves.Load(sha256.Sum256(leaf.Raw))
	if !ok {
		return time.Time{}
	}
	if r := found.(*stapled).valid(); r != nil {
		return r.NextUpdate
	}
	return time.Time{}
}

// valid returns the answer that may be stapled, nil if there is none.
func (x *stapled) valid() *ocsp.Response {
	r := x.answer.Load()
	if r == nil || r.Status != ocsp.Good || !time.Now().Before(r.NextUpdate) {
		return nil
	}
	return r
}

// Keep has staples kept for the certificates in memory with these names, as long as they are in
// memory. It does not block.
func (s *Stapler) Keep(names []string) {
	for _, name := range names {
		for _, x := range s.Matching(name) {
			if len(x.Leaf.OCSPServer) == 0 {
				continue
			}
			url := x.Leaf.OCSPServer[0]
			if other, ok := s.OCSP.ResponderOverrides[url]; ok {
				url = other
			}
			if url == "" {
				continue // certmagic's way to switch a responder off
			}
			leaf := &stapled{Certificate: x, url: url}
			if _, known := s.leaves.LoadOrStore(sha256.Sum256(x.Leaf.Raw), leaf); !known {
				s.tasks.Go(func() { s.keep(leaf) })
			}
		}
	}
}

// keep gets staples for x as long as that is in memory, and then forgets it.
func (s *Stapler) keep(x *stapled) {
	var chain bytes.Buffer
	for _, der := range x.Certificate.Certificate.Certificate {
		chain.Write(devca.PEM("CERTIFICATE", der))
	}
	x.key = certmagic.StorageKeys.OCSPStaple(&x.Certificate, chain.Bytes())
	level, pause := slog.LevelWarn, firstPause
	for due := time.Now(); s.inMemory(&x.Certificate); {
		if now := time.Now(); !now.Before(due) {
			r, err := s.refresh(x)
			if s.life.Err() != nil {
				return
			}
			wait := pause/2 + rand.N(pause) // nodes that failed together must not try again together
			pause = min(2*pause, MaxPause)
			switch {
			case err != nil:
				s.Log.Log(s.life, level, "no new OCSP staple; will try again", "domain", x.Names[0], "error", err, "in", wait)
				level = slog.LevelDebug
			case r.Status == ocsp.Revoked:
				wait = RevokedRest + rand.N(firstPause)
			case now.Before(half(r)):
				// The first node to look asks for all.
				wait, pause = half(r).Sub(now)+rand.N(1+r.NextUpdate.Sub(r.ThisUpdate)/8), firstPause
				level = slog.LevelWarn // of the next failure
			}
			due = now.Add(wait)
		}
		select {
		case <-time.After(min(time.Until(due), MaxPause)):
		case <-s.life.Done():
			return
		}
	}
	s.leaves.Delete(sha256.Sum256(x.Leaf.Raw))
	s.Keep(x.Names[:1]) // it may have come back just now
}

func (s *Stapler) inMemory(x *certmagic.Certificate) bool {
	return slices.ContainsFunc(s.Matching(x.Names[0]), func(y certmagic.Certificate) bool { return y.Hash() == x.Hash() })
}

// half returns when an answer is to be replaced.
func half(r *ocsp.Response) time.Time { return r.ThisUpdate.Add(r.NextUpdate.Sub(r.ThisUpdate) / 2) }
