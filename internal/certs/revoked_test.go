package certs

import (
	"bytes"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

func TestRevoked(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	revoked := func(reason int, only func(*big.Int) bool) func(http.ResponseWriter, *saying) bool {
		return func(_ http.ResponseWriter, say *saying) bool {
			say.NextUpdate = time.Now().Add(10 * time.Hour)
			if only(say.SerialNumber) {
				say.Status, say.RevokedAt, say.RevocationReason = ocsp.Revoked, time.Now(), reason
			}
			return false
		}
	}
	const key = "certificates/ocsp-ca/a.example/a.example.key"
	for _, tc := range []struct {
		name   string
		reason int
		moved  bool
	}{
		{"superseded", ocsp.Superseded, false},
		{"key compromise", ocsp.KeyCompromise, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, storage := newOCSPCA(t, "http://ocsp.example"), newMemStorage()
				a.answers(revoked(tc.reason, func(*big.Int) bool { return false }))
				var out bytes.Buffer
				nodes := a.nodes(t, 3, storage, true, slog.New(slog.NewTextHandler(&out, nil)))
				configs := manageOn(t, nodes, "a.example")
				old, pair := testtls.Serial(configs[0], "a.example"), slices.Clone(storage.data[key])
				time.Sleep(time.Hour)
				a.answers(revoked(tc.reason, func(n *big.Int) bool { return n.Text(16) == old }))
				time.Sleep(24 * time.Hour)
				for i, cfg := range configs {
					if got := testtls.Serial(cfg, "a.example"); got == old || got != testtls.Serial(configs[0], "a.example") {
						t.Errorf("node %d shows %s, the old one is %s", i, got, old)
					}
					if stapleOf(t, cfg, "a.example") == nil {
						t.Errorf("node %d has no staple for the new certificate", i)
					}
				}
				if n := a.issued.Load(); n != 2 {
					t.Errorf("%d orders, want the first and one more", n)
				}
				if mark, ok := storage.data[key+".compromised"]; ok != tc.moved || ok && !bytes.Equal(mark, pair) {
					t.Errorf("the old key is kept: %v, %q", ok, mark)
				}
				if bytes.Equal(storage.data[key], pair) {
					t.Error("the old key is in use")
				}
				for _, c := range nodes {
					c.Close()
				}
				if n := strings.Count(out.String(), "level=ERROR"); n < 1 || n > 3 {
					t.Errorf("%d errors, want at most one of each node:\n%s", n, out.String())
				}
			})
		})
	}
	t.Run("replaced already", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, storage := newOCSPCA(t, "http://ocsp.example"), newMemStorage()
			nodes := a.nodes(t, 2, storage, true, nil)
			configs := manageOn(t, nodes, "a.example")
			storage.notify() // nobody: both go on with the old one
			if err := nodes[0].loader.config.RenewCertSync(t.Context(), "a.example", true); err != nil {
				t.Fatal(err)
			}
			a.answers(revoked(ocsp.Superseded, func(*big.Int) bool { return true }))
			time.Sleep(stapleLife)
			if stapleOf(t, configs[0], "a.example") != nil {
				t.Error("it is not known that the certificate was revoked")
			}
			if n := a.issued.Load(); n != 2 {
				t.Errorf("%d orders, want the first and the one that replaced it", n)
			}
		})
	})
	for _, tc := range []struct {
		name string
		fail error
	}{
		{"new ones are revoked too", nil},
		{"new ones are refused", errors.New("refused")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, storage := newOCSPCA(t, "http://ocsp.example"), newMemStorage()
				a.answers(revoked(ocsp.Superseded, func(*big.Int) bool { return true }))
				nodes := a.nodes(t, 3, storage, true, nil)
				configs := manageOn(t, nodes, "a.example")
				if stapleOf(t, configs[0], "a.example") != nil {
					t.Error("what says that a certificate is revoked is stapled")
				}
				a.mu.Lock()
				a.fail = tc.fail
				a.mu.Unlock()
				time.Sleep(10*time.Hour + time.Minute)
				if n := a.issued.Load() - 1; n < 4 || n > 10 {
					t.Errorf("%d orders in ten hours, want one an hour at most", n)
				}
				if testtls.Serial(configs[0], "a.example") == "" {
					t.Error("nothing is served")
				}
			})
		})
	}
}
