package certs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/rekey"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// What fails is told on every node, with the reason and the time of the next try, and is done as
// soon as that is possible.
func TestRekeyTrouble(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	refuse := func(what testca.Operation, status int, kind, after string) func(testca.Request) *testca.Refusal {
		return func(r testca.Request) *testca.Refusal {
			if what != "" && r.Op != what {
				return nil
			}
			return testca.Problem(status, kind, "not now", after)
		}
	}
	for _, tc := range []struct {
		name   string
		refuse func(testca.Request) *testca.Refusal
		lasts  time.Duration
		// after that it is done; the pause of a name whose orders have failed may take 90 minutes
		within  time.Duration
		trouble string
	}{
		{"the authority is down", refuse("", 503, "serverInternal", ""), time.Hour, 2 * time.Hour, "not now"},
		{"orders fail", refuse("order", 500, "serverInternal", ""), time.Hour, 2 * time.Hour, "a.example (ca-"},
		{"orders are limited", refuse("order", 429, "rateLimited", "7200"), time.Hour, 75 * time.Minute, "no such request before 2000-01-01T02:0"},
		{"accounts are limited", refuse("keychange", 429, "rateLimited", "7200"), time.Hour, 75 * time.Minute, "acme/ca-"},
		{"changes of keys fail", refuse("keychange", 400, "malformed", ""), time.Hour, 12 * time.Minute, "acme/ca-"},
		{"revocations fail", refuse("revoke", 403, "unauthorized", ""), time.Hour, 12 * time.Minute, "the old certificate is not revoked"},
		{"revocations are limited", refuse("revoke", 429, "rateLimited", "7200"), time.Hour, 75 * time.Minute, "no such request before 2000-01-01T02:0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRekeyWorld(t)
				var down atomic.Bool
				w.ca.Refuse(func(r testca.Request) *testca.Refusal {
					if !down.Load() {
						return nil
					}
					return tc.refuse(r)
				})
				for range 2 {
					w.open(w.storage, "a.example", "b.example")
				}
				time.Sleep(time.Minute)
				w.leak()
				stop := w.watch(1, time.Minute, "a.example")
				defer stop()
				down.Store(true)
				ended := make(chan error, 1)
				go func() { ended <- w.nodes[0].Rekey(t.Context(), "17") }()
				time.Sleep(tc.lasts)
				p := w.progress("17")
				if text := strings.Join(p.Trouble, "\n"); !p.Begun || p.Done || !strings.Contains(text, tc.trouble) || !strings.Contains(text, "tried again at 2000-01-01T0") {
					t.Errorf("progress: %+v, want %q", p, tc.trouble)
				}
				down.Store(false)
				time.Sleep(tc.within)
				select {
				case err := <-ended:
					if err != nil {
						t.Error(err)
					}
					w.check("17", "a.example", "b.example")
				default:
					t.Fatalf("not done: %+v\n%s", w.progress("17"), w.log.String())
				}
			})
		})
	}
}

// The storage fails: what is done already stays done, and the rest follows.
func TestRekeyStorageFails(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		w.leak()
		w.storage.denyAll(func(op, key string) error {
			if op == "store" && strings.HasPrefix(key, rekey.Place) {
				return errInjected
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- w.nodes[0].Rekey(ctx, "17") }()
		time.Sleep(time.Minute)
		if p := w.progress("17"); len(p.Trouble) != 1 || !strings.Contains(p.Trouble[0], errInjected.Error()+"; tried again at 2000-01-01T00:0") {
			t.Errorf("progress: %+v", p)
		}
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a storage that takes nothing: %v", err)
		}
		if n := len(w.ca.Placed("")); n != 1 {
			t.Errorf("%d orders before the list is stored", n)
		}
		w.storage.denyAll(nil)
		w.rekey(w.nodes[0], "17")
		w.check("17", "a.example")
	})
}

func TestRekeyRefusesID(t *testing.T) {
	w := newRekeyWorld(t)
	c := w.open(w.storage)
	for _, id := range []string{"", "a/b", "..", "a b", strings.Repeat("x", 65)} {
		if err := c.Rekey(t.Context(), id); err == nil || !strings.Contains(err.Error(), "use 1 to 64 letters") {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := c.RekeyProgress(t.Context(), id); err == nil || !strings.Contains(err.Error(), "use 1 to 64 letters") {
			t.Errorf("progress of %q: %v", id, err)
		}
	}
}

// A certificate that was revoked before, and one whose key is not in the storage.
func TestRekeyRevocations(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.open(w.storage, "before.example", "keyless.example")
		time.Sleep(time.Minute)
		w.leak()
		before, keyless := w.leaves["before.example"].SerialNumber.Text(16), w.leaves["keyless.example"].SerialNumber.Text(16)
		w.ca.Revoke(before, acme.ReasonSuperseded)
		key := certmagic.StorageKeys.SitePrivateKey(w.issuer(), "keyless.example")
		w.storage.notify() // or it would be ordered anew at once
		if err := w.storage.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		w.storage.notify(w.nodes...)
		w.rekey(w.nodes[0], "17")
		if r, ok := w.ca.Revoked(keyless); !ok || r.ByKey || r.Reason != 1 {
			t.Errorf("without its key: %+v, %v", r, ok)
		}
		delete(w.leaves, "before.example") // for another reason
		w.check("17", "keyless.example")
	})
}

// An account that the authority does not know by its key any more is replaced, and so is one beside
// which certmagic has opened another.
func TestRekeyAccounts(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	for _, tc := range []struct {
		name   string
		before func(t *testing.T, w *rekeyWorld)
		during func(t *testing.T, w *rekeyWorld)
		live   int
	}{
		{"lost", func(t *testing.T, w *rekeyWorld) {
			key, err := certmagic.PEMDecodePrivateKey(w.accountKey())
			if err != nil {
				t.Fatal(err)
			}
			w.ca.Forget(key)
		}, nil, 2}, // somebody else has the first
		{"another one was opened", nil, func(t *testing.T, w *rekeyWorld) {
			for _, ext := range []string{".json", ".key"} {
				if err := w.storage.Delete(t.Context(), strings.TrimSuffix(w.account, ".key")+ext); err != nil {
					t.Fatal(err)
				}
			}
		}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRekeyWorld(t)
				var down atomic.Bool
				w.ca.Refuse(func(r testca.Request) *testca.Refusal {
					if r.Op == "keychange" && down.Load() {
						return testca.Problem(503, "serverInternal", "not now", "60")
					}
					return nil
				})
				w.open(w.storage, "a.example")
				time.Sleep(time.Minute)
				w.leak()
				if tc.before != nil {
					tc.before(t, w)
				}
				down.Store(tc.during != nil)
				ended := make(chan error, 1)
				go func() { ended <- w.nodes[0].Rekey(t.Context(), "17") }()
				if tc.during != nil {
					time.Sleep(10 * time.Second)
					tc.during(t, w)
					down.Store(false)
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if n := w.ca.Live(); n != tc.live {
					t.Errorf("%d accounts live, want %d", n, tc.live)
				}
				key, err := certmagic.PEMDecodePrivateKey(w.accountKey())
				if err != nil || !w.ca.Knows(key) {
					t.Errorf("the account in the storage is of no use (%v)", err)
				}
				w.account = ""
				w.check("17", "a.example")
			})
		})
	}
}

// If an authority does not change keys of accounts, the account is closed and another one opened.
func TestRekeyWithoutKeyChange(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.ca.Refuse(func(r testca.Request) *testca.Refusal {
			if r.Op == "keychange" {
				return testca.Problem(501, "notImplemented", "there is no such thing", "")
			}
			return nil
		})
		w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		w.leak()
		w.rekey(w.nodes[0], "17")
		w.check("17", "a.example")
		if n := w.ca.Accounts(); n != 2 {
			t.Errorf("%d accounts were opened", n)
		}
	})
}

// An account whose records were damaged is closed, before its key is deleted.
func TestRekeyDamagedAccount(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		w.leak()
		put(t, w.storage, map[string]string{strings.TrimSuffix(w.account, ".key") + ".json": "{"})
		startAll(t, w.nodes, "b.example")
		time.Sleep(time.Minute)
		if n := w.ca.Live(); n != 2 {
			t.Fatalf("%d accounts live before", n)
		}
		w.rekey(w.nodes[0], "17")
		w.check("17", "a.example")
	})
}

// The program has set the key of the account, and has to set another one.
func TestRekeyConfiguredAccount(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		w.leak()
		key := string(w.accountKey())
		w.nodes[0].Close()
		w.nodes, w.configs = nil, nil
		w.more = func(cfg *certmagic.Config) { cfg.Issuers[0].(*certmagic.ACMEIssuer).AccountKeyPEM = key }
		w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		w.rekey(w.nodes[0], "17")
		if string(w.accountKey()) != key {
			t.Error("the key that the program has set was replaced")
		}
		p, err := w.nodes[0].RekeyProgress(t.Context(), "17")
		if err != nil || len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "AccountKeyPEM") || p.Accounts != 0 {
			t.Errorf("progress: %+v, %v", p, err)
		}
	})
}

// A second machine is removed before the first re-keying has ended: the later call ends both, and
// nothing of the first is lost.
func TestRekeyTwice(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		var refused atomic.Pointer[testca.Operation]
		none := testca.Operation("")
		refused.Store(&none)
		w.ca.Refuse(func(r testca.Request) *testca.Refusal {
			if r.Op == *refused.Load() {
				return testca.Problem(500, "serverInternal", "not now", "")
			}
			return nil
		})
		w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		w.leak()
		first, secrets := w.leaves["a.example"], w.secrets
		for i, what := range []testca.Operation{testca.Revoke, testca.NewOrder, testca.KeyChange} {
			refused.Store(&what)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
			if err := w.nodes[0].Rekey(ctx, fmt.Sprint(17+i)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("while %s fails: %v", what, err)
			}
			cancel()
			w.leak()
		}
		refused.Store(&none)
		w.rekey(w.nodes[0], "20")
		for id := 17; id <= 20; id++ {
			if p := w.progress(fmt.Sprint(id)); !p.Done || p.Revoked != p.Certificates || p.RolledOver != p.Accounts {
				t.Errorf("%d: %+v", id, p)
			}
			if id < 20 && w.storage.Delete(t.Context(), rekey.Place+"/"+fmt.Sprint(id)) != nil {
				t.Error("not deleted")
			}
		}
		w.leaves["a.example"] = first
		for line, of := range secrets {
			w.secrets[line] = of
		}
		w.check("20", "a.example")
	})
}

// The record of what has ended goes after a while.
func TestRekeyIsSwept(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		c := w.open(w.storage)
		if err := c.Rekey(t.Context(), "17"); err != nil {
			t.Error(err)
		}
		put(t, w.storage, map[string]string{rekey.Place + "/17/accounts/x": "{}", rekey.Place + "/18/plan.json": `{"begun":"2000-01-01T00:00:00Z"}`})
		go c.Maintain(t.Context())
		time.Sleep(29 * 24 * time.Hour)
		if diff := cmp.Diff(RekeyProgress{Begun: true, Done: true}, w.progress("17")); diff != "" || w.storage.has(rekey.Place+"/17/accounts") {
			t.Errorf("progress (-want +got), and its list:\n%s", diff)
		}
		time.Sleep(2 * 24 * time.Hour)
		if w.storage.has(rekey.Place+"/17/") || !w.storage.has(rekey.Place+"/18/") {
			t.Error("what has ended is kept, or what has not is deleted")
		}
	})
}

// A certificate is revoked when every node serves another one, also a node that loads slowly.
func TestRekeyRevokesLast(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.open(w.storage, "a.example")
		slow := &slowStorage{memStorage: w.storage}
		w.open(slow, "a.example")
		time.Sleep(time.Minute)
		w.leak()
		old := w.leaves["a.example"].SerialNumber.Text(16)
		slow.pause.Store(int64(time.Second))
		w.ca.Refuse(func(r testca.Request) *testca.Refusal {
			for i, cfg := range w.configs {
				if r.Op == "revoke" && testtls.Serial(cfg, "a.example") == old {
					t.Errorf("node %d still shows the certificate that is revoked", i)
				}
			}
			return nil
		})
		w.rekey(w.nodes[0], "17")
		w.check("17", "a.example")
	})
}

// slowStorage takes its time.
type slowStorage struct {
	*memStorage
	pause atomic.Int64
}

func (s *slowStorage) Load(ctx context.Context, key string) ([]byte, error) {
	time.Sleep(time.Duration(s.pause.Load()))
	return s.memStorage.Load(ctx, key)
}

// While revocations are limited, no certificate costs a write, and one line of the log says so.
func TestRekeyLimitIsCheap(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		var limited atomic.Bool
		limited.Store(true)
		w.ca.Refuse(func(r testca.Request) *testca.Refusal {
			if r.Op == "revoke" && limited.Load() {
				return testca.Problem(429, "rateLimited", "too many", "86400")
			}
			return nil
		})
		names := stubca.Names("cheap", 40)
		c := w.open(w.storage, names...)
		time.Sleep(2 * time.Minute)
		w.leak()
		var barriers atomic.Int64
		c.rekeyer.Barrier = func(context.Context) { barriers.Add(1) }
		ended := make(chan error, 1)
		go func() { ended <- c.Rekey(t.Context(), "17") }()
		time.Sleep(12 * time.Hour)
		if n := barriers.Load(); n == 0 || n > 16 {
			t.Errorf("%d barriers within the pause, want those before it was known", n)
		}
		warned := 0
		for line := range strings.Lines(w.log.String()) {
			if strings.Contains(line, "a key is not replaced yet") && strings.Contains(line, "WARN") && strings.Contains(line, "no such request before") {
				warned++
			}
		}
		if warned != 1 {
			t.Errorf("%d warnings of what waits, want 1, of %d certificates", warned, len(names))
		}
		limited.Store(false)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		w.check("17", names...)
	})
}

// A limit of revocations holds up no orders.
func TestRevocationsAreLimitedAlone(t *testing.T) { limitedAlone(t, testca.Revoke) }

// A limit of key changes holds up no orders.
func TestKeyChangesAreLimitedAlone(t *testing.T) { limitedAlone(t, testca.KeyChange) }

// limitedAlone limits one kind of request.
func limitedAlone(t *testing.T, limited testca.Operation) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.ca.Refuse(func(r testca.Request) *testca.Refusal {
			if r.Op == limited {
				return testca.Problem(429, "rateLimited", "too many", "86400")
			}
			return nil
		})
		w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := w.nodes[0].Rekey(ctx, "17"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s is limited: %v", limited, err)
		}
		startAll(t, w.nodes, "b.example")
		time.Sleep(time.Minute)
		if s := w.nodes[0].Status()[1]; !s.Managed || s.Err != nil {
			t.Errorf("a new name: %+v", s)
		}
		if n := w.ca.Asked(limited); n != 1 {
			t.Errorf("%d requests within the pause", n)
		}
	})
}
