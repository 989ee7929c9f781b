package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/flotilla-ha/flotilla/internal/certs/staple"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// stapleOf returns what a client gets with the certificate for name; nil: nothing.
func stapleOf(t *testing.T, cfg *tls.Config, name string) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		tls.Server(server, cfg).Handshake()
	}()
	conn := tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return conn.OCSPResponse()
}

func (s *memStorage) has(prefix string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.data {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

func TestStapleOverNetwork(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	a := newOCSPCA(t, "http://"+srv.Listener.Addr().String())
	srv.Config.Handler = a
	srv.Start()
	defer srv.Close()
	nodes := a.nodes(t, 2, newMemStorage(), false, nil)
	for _, c := range nodes {
		addr := serveTLS(t, c, http.NotFoundHandler(), "good.example")
		settle(t, c)
		roots := x509.NewCertPool()
		roots.AddCert(a.root)
		for start := time.Now(); ; {
			conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "good.example", RootCAs: roots})
			if err != nil {
				t.Fatal(err)
			}
			leaf, raw := conn.ConnectionState().PeerCertificates[0], conn.OCSPResponse()
			conn.Close()
			if raw != nil {
				if r, err := ocsp.ParseResponseForCert(raw, leaf, a.root); err != nil || r.Status != ocsp.Good {
					t.Errorf("stapled %+v, %v", r, err)
				}
				break
			}
			if time.Since(start) > 20*time.Second {
				t.Fatal("no staple")
			}
		}
	}
	if n := a.asked.Load(); n != 1 {
		t.Errorf("%d questions of two nodes, want one", n)
	}
}

func TestStapleIsFetchedOnceAndRefreshed(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		a, storage := newOCSPCA(t, "http://ocsp.example"), newMemStorage()
		a.answers(func(http.ResponseWriter, *saying) bool { time.Sleep(time.Second); return false })
		nodes := a.nodes(t, 3, storage, true, nil)
		configs := manageOn(t, nodes, "a.example")
		expect := func(what string, asked int64) (last []byte) {
			t.Helper()
			for i, cfg := range configs {
				raw := stapleOf(t, cfg, "a.example")
				if raw == nil || last != nil && !bytes.Equal(raw, last) {
					t.Errorf("%s: node %d has a staple of %d bytes, or another one", what, i, len(raw))
				}
				last = raw
			}
			if n := a.asked.Load(); n != asked {
				t.Errorf("%s: %d questions, want %d", what, n, asked)
			}
			return last
		}
		time.Sleep(10 * time.Second)
		first := expect("after ten seconds", 1)
		time.Sleep(stapleLife/2 - time.Minute)
		expect("before half of its life", 1)
		time.Sleep(stapleLife / 4)
		second := expect("after half of its life", 2)
		if bytes.Equal(first, second) {
			t.Error("the staple is not a new one")
		}

		// A node that starts takes what is there.
		var locks atomic.Int64
		storage.denyAll(func(op, key string) error {
			if op == "lock" && strings.HasPrefix(key, "ocsp_") {
				locks.Add(1)
			}
			return nil
		})
		next := a.nodes(t, 1, storage, true, nil)
		configs = append(configs, manageOn(t, next, "a.example")...)
		expect("on a new node", 2)
		if n := locks.Load(); n != 0 {
			t.Errorf("a new node took %d locks, which go through the log", n)
		}
		storage.notify(append(nodes, next...)...)

		// The responder fails: the staple is given until its end and no longer, and the responder
		// is not overrun.
		a.answers(func(w http.ResponseWriter, _ *saying) bool { w.WriteHeader(http.StatusBadGateway); return true })
		r, err := ocsp.ParseResponse(second, a.root)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(r.NextUpdate) - time.Second)
		for _, cfg := range configs {
			if !bytes.Equal(stapleOf(t, cfg, "a.example"), second) {
				t.Error("a staple that is valid was dropped")
			}
		}
		if n := a.asked.Load() - 2; n < 4*20 || n > 4*100 {
			t.Errorf("%d questions of four nodes in two days, want about one an hour", n)
		}
		time.Sleep(2 * time.Second)
		for _, cfg := range configs {
			if stapleOf(t, cfg, "a.example") != nil {
				t.Error("an expired staple was given")
			}
		}
		a.answers(nil)
		time.Sleep(2 * time.Hour)
		for _, cfg := range configs {
			if stapleOf(t, cfg, "a.example") == nil {
				t.Error("no staple after the responder has recovered")
			}
		}

		// The next failure is the first again.
		for _, c := range nodes {
			c.Close()
		}
		a.answers(func(w http.ResponseWriter, _ *saying) bool { w.WriteHeader(http.StatusBadGateway); return true })
		before := a.asked.Load()
		for a.asked.Load() == before {
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Minute)
		if n := a.asked.Load() - before; n < 3 {
			t.Errorf("%d questions in the first minutes of a failure, want three", n)
		}
	})
}

// The first failure of a responder is a warning, and the first after it has worked again is
// another.
func TestStapleFailuresAreLoggedAnew(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		a := newOCSPCA(t, "http://ocsp.example")
		var out testlog.Buffer
		nodes := a.nodes(t, 1, newMemStorage(), true, slog.New(slog.NewTextHandler(&out, nil)))
		manageOn(t, nodes, "a.example")
		for want := range 3 {
			if n := strings.Count(out.String(), "no new OCSP staple"); n != want {
				t.Errorf("%d warnings after %d failures", n, want)
			}
			a.answers(func(w http.ResponseWriter, _ *saying) bool { w.WriteHeader(http.StatusBadGateway); return true })
			time.Sleep(stapleLife)
			a.answers(nil)
			time.Sleep(2 * time.Hour)
		}
	})
}

func TestStaplesThatAreRefused(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	for _, tc := range []struct {
		name    string
		prepare func(*testing.T, *ocspCA)
		edit    func(*testing.T, *ocspCA, http.ResponseWriter, *saying) bool
		given   bool
	}{
		{name: "good", given: true},
		{name: "delegated", given: true, edit: func(t *testing.T, a *ocspCA, _ http.ResponseWriter, say *saying) bool {
			say.signer, say.key = signed(t, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}, a.root, a.key)
			say.Certificate = say.signer
			return false
		}},
		{name: "a customer's signature", edit: func(t *testing.T, a *ocspCA, _ http.ResponseWriter, say *saying) bool {
			say.signer, say.key = signed(t, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, a.root, a.key)
			say.Certificate = say.signer
			return false
		}},
		{name: "a stranger's signature", edit: func(t *testing.T, _ *ocspCA, _ http.ResponseWriter, say *saying) bool {
			_, say.key = signed(t, &x509.Certificate{}, nil, nil)
			return false
		}},
		{name: "garbage", edit: func(_ *testing.T, _ *ocspCA, w http.ResponseWriter, _ *saying) bool {
			w.Write([]byte("<html>"))
			return true
		}},
		{name: "another serial", edit: func(_ *testing.T, _ *ocspCA, _ http.ResponseWriter, say *saying) bool {
			say.SerialNumber = big.NewInt(7)
			return false
		}},
		{name: "expired", edit: func(_ *testing.T, _ *ocspCA, _ http.ResponseWriter, say *saying) bool {
			say.ThisUpdate, say.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			return false
		}},
		{name: "of the future", edit: func(_ *testing.T, _ *ocspCA, _ http.ResponseWriter, say *saying) bool {
			say.ThisUpdate = time.Now().Add(time.Hour)
			return false
		}},
		{name: "without end", edit: func(_ *testing.T, _ *ocspCA, _ http.ResponseWriter, say *saying) bool {
			say.NextUpdate = time.Time{}
			return false
		}},
		{name: "outlives the leaf", edit: func(_ *testing.T, _ *ocspCA, _ http.ResponseWriter, say *saying) bool {
			say.NextUpdate = time.Now().Add(100 * 24 * time.Hour)
			return false
		}},
		{name: "unknown", edit: func(_ *testing.T, _ *ocspCA, _ http.ResponseWriter, say *saying) bool {
			say.Status = ocsp.Unknown
			return false
		}},
		{name: "oversized", edit: func(_ *testing.T, _ *ocspCA, _ http.ResponseWriter, say *saying) bool {
			say.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Value: make([]byte, 16<<10)}}
			return false
		}},
		{name: "with another status", edit: func(_ *testing.T, _ *ocspCA, w http.ResponseWriter, _ *saying) bool {
			w.WriteHeader(http.StatusAccepted)
			return false
		}},
		{name: "behind a redirect", edit: func(_ *testing.T, _ *ocspCA, w http.ResponseWriter, say *saying) bool {
			if say.URL.Path != "/inside" {
				http.Redirect(w, say.Request, "/inside", http.StatusTemporaryRedirect)
				return true
			}
			return false
		}},
		{name: "no issuer in the chain", prepare: func(_ *testing.T, a *ocspCA) { a.alone = true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, storage := newOCSPCA(t, "http://ocsp.example"), newMemStorage()
				if tc.prepare != nil {
					tc.prepare(t, a)
				}
				if tc.edit != nil {
					a.answers(func(w http.ResponseWriter, say *saying) bool { return tc.edit(t, a, w, say) })
				}
				var out bytes.Buffer
				nodes := a.nodes(t, 1, storage, true, slog.New(slog.NewTextHandler(&out, nil)))
				configs := manageOn(t, nodes, "a.example")
				time.Sleep(30 * time.Minute)
				if given := stapleOf(t, configs[0], "a.example") != nil; given != tc.given {
					t.Errorf("stapled %v, want %v", given, tc.given)
				}
				if storage.has("ocsp/") != tc.given {
					t.Errorf("stored %v, want %v", !tc.given, tc.given)
				}
				if n := a.asked.Load(); tc.given && n != 1 || n > 8 || n < 3 && !tc.given && !a.alone || n > 0 && a.alone {
					t.Errorf("%d questions in half an hour", n)
				}
				nodes[0].Close()
				if n, want := strings.Count(out.String(), "no new OCSP staple"), map[bool]int{true: 0, false: 1}[tc.given]; n != want {
					t.Errorf("%d records, want %d:\n%s", n, want, out.String())
				}
			})
		})
	}
}

func TestStapleDelaysNothing(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		a, storage := newOCSPCA(t, "http://ocsp.example"), newMemStorage()
		a.answers(func(_ http.ResponseWriter, say *saying) bool { <-say.Context().Done(); return true })
		nodes := a.nodes(t, 2, storage, true, nil)
		// within the pause before an order
		configs := manageOn(t, nodes, "hangs.example", "other.example")
		start := time.Now()
		if a.asked.Load() == 0 {
			t.Fatal("the responder was not asked")
		}
		for _, cfg := range configs {
			if stapleOf(t, cfg, "hangs.example") != nil {
				t.Error("a staple came out of nothing")
			}
		}
		old := testtls.Serial(configs[1], "other.example")
		if err := nodes[0].loader.config.RenewCertSync(t.Context(), "other.example", true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := testtls.Serial(configs[1], "other.example"); got == old || got == "" {
			t.Errorf("shows %s after a renewal, as before it", got)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("handshakes, a renewal and its push took %v", d)
		}
		for _, c := range nodes {
			c.Close()
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("closing took %v", d)
		}
	})
}

func TestNoResponderNoStaple(t *testing.T) {
	synctest.Parallel(t)
	for _, tc := range []struct {
		name, url string
		override  map[string]string
		stapled   bool
	}{
		{"none in the leaf", "", nil, false},
		{"switched off", "http://ocsp.example", map[string]string{"http://ocsp.example": ""}, false},
		{"one in the leaf", "http://ocsp.example", nil, true}, // or this test would see nothing
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, storage := newOCSPCA(t, tc.url), newMemStorage()
				var touched atomic.Int64
				storage.denyAll(func(_, key string) error {
					if strings.HasPrefix(key, "ocsp") {
						touched.Add(1)
					}
					return nil
				})
				var out bytes.Buffer
				a.overrides = tc.override
				nodes := a.nodes(t, 1, storage, true, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
				configs := manageOn(t, nodes, "a.example")
				time.Sleep(2 * time.Hour)
				for what, got := range map[string]bool{
					"a staple":   stapleOf(t, configs[0], "a.example") != nil,
					"a question": a.asked.Load() != 0,
					"a record":   touched.Load() != 0,
				} {
					if got != tc.stapled {
						t.Errorf("%s: %v, want %v", what, got, tc.stapled)
					}
				}
				nodes[0].Close()
				if !tc.stapled && strings.Contains(out.String(), "OCSP") {
					t.Errorf("logged:\n%s", out.String())
				}
			})
		})
	}
}

// Without a leader there are no locks, and nothing is stored.
func TestStapleWithoutQuorum(t *testing.T) {
	synctest.Parallel(t)
	for _, tc := range []struct {
		name string
		wait time.Duration
	}{
		{"locks fail", 0},
		{"locks wait", staple.LockTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, storage := newOCSPCA(t, "http://ocsp.example"), newMemStorage()
				nodes := a.nodes(t, 2, storage, true, nil)
				storage.denyAll(func(op, key string) error {
					if op == "lock" && strings.HasPrefix(key, "ocsp_") {
						if tc.wait == 0 {
							return errInjected
						}
						select {
						case storage.lock(key) <- struct{}{}: // somebody else has it
						default:
						}
					}
					return nil
				})
				configs := manageOn(t, nodes, "a.example")
				time.Sleep(tc.wait)
				synctest.Wait()
				for i, cfg := range configs {
					if stapleOf(t, cfg, "a.example") == nil {
						t.Errorf("node %d has no staple", i)
					}
				}
				if n := a.asked.Load(); n != 2 || storage.has("ocsp/") {
					t.Errorf("%d questions, want one of each node; stored %v", n, storage.has("ocsp/"))
				}
			})
		})
	}
}

func TestStapleIsForgotten(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		a, storage := newOCSPCA(t, "http://ocsp.example"), newMemStorage()
		nodes := a.nodes(t, 1, storage, true, nil)
		configs := manageOn(t, nodes, "a.example")
		for range 3 {
			if err := nodes[0].loader.config.RenewCertSync(t.Context(), "a.example", true); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if stapleOf(t, configs[0], "a.example") == nil {
			t.Error("no staple for the new certificate")
		}
		time.Sleep(staple.MaxPause)
		before := a.asked.Load()
		time.Sleep(stapleLife * 3 / 4)
		if n := a.asked.Load() - before; n != 1 {
			t.Errorf("%d questions, want one: for the certificate that is served", n)
		}
	})
}
