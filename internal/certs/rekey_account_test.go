package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// client returns a client of the authority.
func (w *rekeyWorld) client() *acme.Client {
	return &acme.Client{Directory: w.ca.URL(), HTTPClient: &http.Client{Transport: w.ca}}
}

// forgetAccount deletes the account from the storage as certmagic does, without a lock.
func (w *rekeyWorld) forgetAccount() {
	for _, ext := range []string{".json", ".key"} {
		if err := w.storage.Delete(w.t.Context(), strings.TrimSuffix(w.account, ".key")+ext); err != nil {
			w.t.Error(err)
		}
	}
}

// register opens another account, under certmagic's lock and in its order. It stores parts of it.
func (w *rekeyWorld) register(parts ...string) {
	const lock = "register_acme_account_" + rekeyEmail
	if err := w.storage.Lock(w.t.Context(), lock); err != nil {
		w.t.Error(err)
		return
	}
	defer w.storage.Unlock(w.t.Context(), lock)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Error(err)
		return
	}
	a, err := w.client().NewAccount(w.t.Context(), acme.Account{PrivateKey: key, Contact: []string{"mailto:" + rekeyEmail}})
	if err != nil {
		w.t.Error(err)
		return
	}
	text, bad := certmagic.PEMEncodePrivateKey(key)
	described, err := json.Marshal(a)
	if bad != nil || err != nil {
		w.t.Error(bad, err)
		return
	}
	values := map[string][]byte{".json": described, ".key": text}
	for _, ext := range parts {
		if err := w.storage.Store(w.t.Context(), strings.TrimSuffix(w.account, ".key")+ext, values[ext]); err != nil {
			w.t.Error(err)
		}
	}
}

// checkAccount fails the test unless the account in the storage has the stored key.
func (w *rekeyWorld) checkAccount() {
	w.t.Helper()
	var stored acme.Account
	raw, err := w.storage.Load(w.t.Context(), strings.TrimSuffix(w.account, ".key")+".json")
	if err == nil {
		err = json.Unmarshal(raw, &stored)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := certmagic.PEMDecodePrivateKey(w.accountKey())
	if err != nil {
		w.t.Fatal(err)
	}
	known, err := w.client().GetAccount(w.t.Context(), acme.Account{PrivateKey: key})
	if err != nil || known.Location != stored.Location {
		w.t.Errorf("the storage has the account %s and the key of %q (%v)", stored.Location, known.Location, err)
	}
}

// certmagic deletes an account and opens another one while the first has its key changed: the
// storage never keeps the URL of the one and the key of the other.
func TestRekeyAccountIsReplacedMeanwhile(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	for _, tc := range []struct {
		name, at string // the access to the key at which that happens
		happens  func(w *rekeyWorld)
	}{
		{"before the new key is stored", "store", func(w *rekeyWorld) {
			w.forgetAccount()
			w.register(".json", ".key")
		}},
		{"before the key is loaded", "load", func(w *rekeyWorld) {
			w.forgetAccount()
			w.register(".json", ".key")
		}},
		{"half of it, before the lock is taken", "lock", func(w *rekeyWorld) { w.register(".json") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRekeyWorld(t)
				w.open(w.storage, "a.example")
				time.Sleep(time.Minute)
				w.leak()
				var happened atomic.Bool
				ended := make(chan struct{})
				w.storage.denyAll(func(op, key string) error {
					account := key == w.account || op == "lock" && strings.HasPrefix(key, "register_acme_account")
					if op != tc.at || !account || w.ca.Asked("keychange") == 0 || happened.Swap(true) {
						return nil
					}
					go func() { defer close(ended); tc.happens(w) }()
					select {
					case <-ended:
					case <-time.After(time.Second): // it waits for a lock
					}
					return nil
				})
				w.rekey(w.nodes[0], "17")
				if !happened.Load() {
					t.Fatal("it has not happened")
				}
				<-ended
				startAll(t, w.nodes, "b.example")
				time.Sleep(time.Minute)
				if s := w.nodes[0].Status()[1]; !s.Managed || s.Err != nil {
					t.Errorf("a new name: %+v", s)
				}
				w.checkAccount()
				w.account = "" // one account that nobody has the key of may be left
				w.check("17", "a.example")
			})
		})
	}
}
