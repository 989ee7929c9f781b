package flotilla

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

const (
	bundleLock = "issue_cert_*.example.com"
	bundleStem = "certificates/ca/wildcard_.example.com/wildcard_.example.com"
)

func mustStore(t *testing.T, n *Node, key, value string) {
	t.Helper()
	if err := n.storage.Store(t.Context(), key, []byte(value)); err != nil {
		t.Errorf("storing %s: %v", key, err)
	}
}

func mustLock(t *testing.T, n *Node, name string) {
	t.Helper()
	if err := n.storage.Lock(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

// wantRecords checks what a node finds of the bundle; empty: that it finds nothing.
func wantRecords(t *testing.T, n *Node, key, crt, meta string) {
	t.Helper()
	for ext, want := range map[string]string{".key": key, ".crt": crt, ".json": meta} {
		got, err := n.storage.Load(t.Context(), bundleStem+ext)
		if want == "" && !errors.Is(err, fs.ErrNotExist) || want != "" && string(got) != want {
			t.Errorf("%s has %q, %v at %s; want %q", n.self.Name, got, err, ext, want)
		}
	}
}

// What certmagic stores of a certificate under its lock is there at once or not at all, whatever
// happens in between.
func TestBundle(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, test := range []struct {
		name string
		then func(t *testing.T, n, other *Node, net *simnet.Network)
	}{
		{"complete", func(t *testing.T, n, other *Node, _ *simnet.Network) {
			before := n.store.State().Index
			mustStore(t, n, bundleStem+".key", "new key")
			mustStore(t, n, bundleStem+".crt", "new crt")
			wantRecords(t, other, "old key", "old crt", "{}")
			if now := n.store.State().Index; now != before {
				t.Errorf("%d entries for a certificate that is not complete", now-before)
			}
			mustStore(t, n, bundleStem+".json", `{"new":1}`)
			wantRecords(t, other, "new key", "new crt", `{"new":1}`)
			if now := n.store.State().Index; now != before+1 {
				t.Errorf("%d entries for a certificate", now-before)
			}
		}},
		{"given up", func(t *testing.T, n, other *Node, _ *simnet.Network) {
			mustStore(t, n, bundleStem+".key", "new key")
			mustStore(t, n, bundleStem+".crt", "new crt")
			for _, ext := range []string{".crt", ".key"} { // certmagic takes back what it has stored
				if err := n.storage.Delete(t.Context(), bundleStem+ext); err != nil {
					t.Error(err)
				}
			}
			if err := n.storage.Unlock(t.Context(), bundleLock); err != nil {
				t.Error(err)
			}
			wantRecords(t, other, "old key", "old crt", "{}")
		}},
		{"killed", func(t *testing.T, n, other *Node, net *simnet.Network) {
			mustStore(t, n, bundleStem+".key", "new key")
			mustStore(t, n, bundleStem+".crt", "new crt")
			net.Host(n.self.Name).Kill()
			n.Close()
			mustLock(t, other, bundleLock)
			wantRecords(t, other, "old key", "old crt", "{}")
		}},
		{"refused", func(t *testing.T, n, other *Node, net *simnet.Network) {
			mustStore(t, n, bundleStem+".key", "new key")
			mustStore(t, n, bundleStem+".crt", "new crt")
			net.Isolate(n.self.Name)
			mustLock(t, other, bundleLock) // the lease is over
			late := make(chan error)
			go func() { late <- n.storage.Store(t.Context(), bundleStem+".json", []byte(`{"new":1}`)) }()
			time.Sleep(time.Second)
			net.Heal()
			if err := <-late; !errors.Is(err, ErrLost) {
				t.Errorf("the last part of a holder that was deposed: %v, want ErrLost", err)
			}
			for _, ext := range []string{".crt", ".key"} {
				// certmagic takes back what it has stored, and the old key is not to go
				if err := n.storage.Delete(t.Context(), bundleStem+ext); err != nil {
					t.Error(err)
				}
			}
			wantRecords(t, other, "old key", "old crt", "{}")
			if err := n.storage.Unlock(t.Context(), bundleLock); !errors.Is(err, ErrLost) {
				t.Errorf("unlocking what was lost: %v", err)
			}
		}},
		{"by hand", func(t *testing.T, n, other *Node, _ *simnet.Network) {
			mustStore(t, n, bundleStem+".key", "new key")
			mustStore(t, n, bundleStem+".key", "newer key")
			if err := n.storage.Unlock(t.Context(), bundleLock); err != nil {
				t.Error(err)
			}
			wantRecords(t, other, "newer key", "old crt", "{}") // nothing that was stored is lost
		}},
		{"another certificate", func(t *testing.T, n, other *Node, _ *simnet.Network) {
			mustStore(t, n, "certificates/ca/x/x.key", "1")
			if got, err := other.storage.Load(t.Context(), "certificates/ca/x/x.key"); string(got) != "1" {
				t.Errorf("%q, %v", got, err)
			}
			if err := n.storage.Delete(t.Context(), bundleStem+".key"); err != nil {
				t.Error(err)
			}
			wantRecords(t, other, "", "old crt", "{}") // what is committed can be deleted under the lock
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				nodes := trio(t, net, nil)
				leader, others := leaderOf(t, nodes)
				for ext, value := range map[string]string{".key": "old key", ".crt": "old crt", ".json": "{}"} {
					mustStore(t, leader, bundleStem+ext, value)
				}
				mustLock(t, others[0], bundleLock)
				test.then(t, others[0], others[1], net)
			})
		})
	}
}

// pemCertificate makes a certificate and its ARI identifier.
func pemCertificate(t *testing.T, serial int64) (crt, id string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), AuthorityKeyId: []byte{1, 2, 3}, SubjectKeyId: []byte{1, 2, 3}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	leaf.AuthorityKeyId = leaf.SubjectKeyId
	if id, err = acme.ARIUniqueIdentifier(leaf); err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), id
}

func metaAbout(id, what string) string {
	return fmt.Sprintf(`{"issuer_data":{"url":%q,"renewal_info":{"_uniqueIdentifier":%q}}}`, what, id)
}

// Renewal information of a certificate that has been replaced is not stored, also while another
// bundle is being stored.
func TestMetadataOfTheOldCertificateAreDropped(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		a, b := nodes[0], nodes[1]
		crt, id := pemCertificate(t, 1)
		newCrt, newID := pemCertificate(t, 2)
		mustStore(t, a, bundleStem+".key", "key")
		mustStore(t, a, bundleStem+".crt", crt)
		mustStore(t, a, bundleStem+".json", metaAbout(id, "first"))
		mustStore(t, b, bundleStem+".json", metaAbout(id, "moved"))
		wantRecords(t, a, "key", crt, metaAbout(id, "moved"))
		mustStore(t, b, bundleStem+".json", metaAbout(newID, "of another"))
		wantRecords(t, a, "key", crt, metaAbout(id, "moved"))

		mustLock(t, a, bundleLock)
		mustStore(t, a, bundleStem+".key", "new key")
		mustStore(t, a, bundleStem+".json", metaAbout(id, "while the key is kept back"))
		mustStore(t, a, bundleStem+".crt", newCrt)
		mustStore(t, a, bundleStem+".json", metaAbout(id, "while the certificate is kept back"))
		wantRecords(t, b, "key", crt, metaAbout(id, "while the certificate is kept back"))
		mustStore(t, a, bundleStem+".json", metaAbout(newID, "new"))
		wantRecords(t, b, "new key", newCrt, metaAbout(newID, "new"))
		mustStore(t, b, bundleStem+".json", metaAbout(id, "late"))
		wantRecords(t, b, "new key", newCrt, metaAbout(newID, "new"))
	})
}

func TestBundleNames(t *testing.T) {
	for key, want := range map[string][2]string{
		"certificates/ca/x/x.key":                {"x", ".key"},
		"certificates/ca/x/x.crt":                {"x", ".crt"},
		"certificates/ca/x/x.json":               {"x", ".json"},
		"certificates/ca/x/x.key.compromised":    {},
		"certificates/ca/x/y.key":                {},
		"certificates/ca/x":                      {},
		"certificates/ca/x/x/x.key":              {},
		"acme/ca/x/x.key":                        {},
		"certificates/ca/a.b/a.b.key":            {"a.b", ".key"},
		"certificates/ca/wildcard_.x/w.x.crt":    {},
		"other/certificates/ca/x/x.key":          {},
		"certificates":                           {},
		"certificates/ca/a.key/a.key":            {},
		"certificates/ca/a.key/a.key.key":        {"a.key", ".key"},
		"certificates/acme-v02-directory/x/.crt": {},
	} {
		site, part := keyspace.BundlePart(key)
		if diff := cmp.Diff(want, [2]string{site, part}); diff != "" {
			t.Errorf("%s:\n%s", key, diff)
		}
	}
	if got := issueSite("issue_cert_*.Example.com"); got != "wildcard_.example.com" {
		t.Errorf("the lock of a wildcard is for %q", got)
	}
	if got := issueSite("storage_clean"); got != "" {
		t.Errorf("another lock is for %q", got)
	}
}

// A lock needs no renewal while the node has its lease. One that was lost is taken again if it is
// free, and else it is an error.
func TestRenewLockLease(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		_, others := leaderOf(t, nodes)
		a, b := others[0], others[1]
		renew := func(n *Node) error { return n.storage.RenewLockLease(t.Context(), "l", time.Minute) }
		mustLock(t, a, "l")
		index := a.store.State().Index
		if err := renew(a); err != nil || a.store.State().Index != index {
			t.Errorf("renewing what is held: %v, %d entries", err, a.store.State().Index-index)
		}
		if err := renew(b); !errors.Is(err, ErrLost) {
			t.Errorf("renewing what another holds: %v", err)
		}
		net.Isolate(a.self.Name)
		time.Sleep(2 * time.Second)
		net.Heal()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := a.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		if err := renew(a); err != nil {
			t.Errorf("renewing what was lost and is free: %v", err)
		}
		if ok, err := b.storage.TryLock(t.Context(), "l"); ok || err != nil {
			t.Errorf("another gets it: %v, %v", ok, err)
		}
		if err := a.storage.Unlock(t.Context(), "l"); err != nil {
			t.Errorf("unlocking what was renewed: %v", err)
		}
		if err := renew(b); err != nil { // a free one that it never had
			t.Errorf("renewing a free one: %v", err)
		}
		if err := b.storage.Unlock(t.Context(), "l"); err != nil {
			t.Error(err)
		}
	})
}

// Who has lost a lock and goes on without knowing it keeps others of its own process out until it
// unlocks: their records could not be told apart.
func TestLostLockIsWaitedForOnItsNode(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		_, others := leaderOf(t, nodes)
		a := others[0]
		mustLock(t, a, "l")
		net.Isolate(a.self.Name)
		time.Sleep(2 * time.Second)
		net.Heal()
		got := make(chan error, 1)
		go func() { got <- a.storage.Lock(t.Context(), "l") }()
		time.Sleep(10 * time.Second)
		select {
		case err := <-got:
			t.Errorf("a second caller gets the lock: %v", err)
		default:
		}
		if err := a.storage.Unlock(t.Context(), "l"); !errors.Is(err, ErrLost) {
			t.Errorf("the first one unlocks: %v", err)
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
		if err := a.storage.Unlock(t.Context(), "l"); err != nil {
			t.Error(err)
		}
	})
}

// Large entries and small ones that wait together go to the leader in calls that it takes.
func TestLargeBundlesAmongSmallWrites(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), func(c *Config) { c.MaxState = 1 << 30 })
		_, others := leaderOf(t, nodes)
		var wg sync.WaitGroup
		start := time.Now()
		for i := range Cases(t, 12, 3) {
			wg.Go(func() {
				var records []state.Record
				for j := range 3 {
					records = append(records, state.Record{Key: fmt.Sprint("large/", i, j), Value: make([]byte, MaxValue)})
				}
				records = append(records, state.Record{Key: fmt.Sprint("large/", i, 3), Value: make([]byte, 400<<10)})
				if err := others[0].storage.storeAll(t.Context(), records); err != nil {
					t.Error(err)
				}
			})
			for j := range 10 {
				wg.Go(func() { mustStore(t, others[0], fmt.Sprint("small/", i, j), string(make([]byte, 90<<10))) })
			}
		}
		wg.Wait()
		if took := time.Since(start); took > 40*time.Millisecond {
			t.Errorf("it took %v of virtual time: calls were refused and repeated", took)
		}
		err := others[0].storage.storeAll(t.Context(), []state.Record{{Key: "a", Value: make([]byte, MaxValue)}, {Key: "b", Value: make([]byte, MaxValue)}, {Key: "c", Value: make([]byte, MaxValue)}, {Key: "d", Value: make([]byte, MaxValue)}})
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("more than fits into a call: %v, want ErrTooLarge", err)
		}
	})
}
