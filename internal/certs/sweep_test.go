package certs

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/sweep"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// maintained runs the maintenance of a node on storage, until the test ends, and returns what it
// logs.
func maintained(t *testing.T, storage *memStorage) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	c, err := openCerts(Policy{}, storage, true, always, testlog.To(&out, slog.LevelWarn))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Maintain(ctx) }()
	t.Cleanup(func() { cancel(); <-done; c.Close() })
	return &out
}

func put(t *testing.T, storage *memStorage, values map[string]string) {
	t.Helper()
	for key, value := range values {
		if err := storage.Store(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
}

// gone reports which of keys are in the storage no more.
func gone(storage *memStorage, keys ...string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return storage.Exists(context.Background(), key) })
}

const (
	tokenLeft   = "acme/ca.example-dir/challenge_tokens/left.example.json"
	tokenUsed   = "acme/ca.example-dir/challenge_tokens/used.example.json"
	tokenOther  = "acme/other.example/challenge_tokens/left.example.json"
	recordTest  = "rw_test_123"
	accountKey  = "acme/ca.example-dir/users/default/default.json"
	otherRecord = "app/rw_test_123"
)

func TestSweep(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		put(t, storage, map[string]string{tokenLeft: "a", tokenUsed: "b", tokenOther: "c", recordTest: "d", accountKey: "e", otherRecord: "f"})
		maintained(t, storage)
		all := []string{accountKey, otherRecord, tokenLeft, tokenUsed, tokenOther, recordTest}
		time.Sleep(30 * time.Minute)
		put(t, storage, map[string]string{tokenUsed: "another order"})
		time.Sleep(25 * time.Minute)
		synctest.Wait()
		if g := gone(storage, all...); len(g) > 0 {
			t.Errorf("deleted before an hour was over: %v", g)
		}
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if g := gone(storage, all...); !slices.Equal(g, []string{tokenLeft, tokenOther, recordTest}) {
			t.Errorf("deleted after an hour: %v", g)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if g := gone(storage, tokenUsed); len(g) > 0 {
			t.Errorf("deleted before an hour was over since it changed: %v", g)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if g := gone(storage, all...); !slices.Equal(g, []string{tokenLeft, tokenUsed, tokenOther, recordTest}) {
			t.Errorf("deleted in the end: %v", g)
		}
	})
}

// Neither a storage that fails nor a certificate that cannot be read ends the maintenance. The
// certificate stops the cleaning of others until it is deleted.
func TestMaintenanceGoesOn(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		put(t, storage, map[string]string{tokenLeft: "a", tokenOther: "c"})
		var deletes atomic.Int64
		storage.denyAll(func(op, key string) error {
			if op == "load" && key == tokenOther || op == "list" && key == "" || op == "delete" && deletes.Add(1) == 1 {
				return errInjected
			}
			return nil
		})
		out := maintained(t, storage)
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		if g := gone(storage, tokenLeft, tokenOther); len(g) > 0 {
			t.Errorf("deleted by a storage that fails: %v", g)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if g := gone(storage, tokenLeft, tokenOther); !slices.Equal(g, []string{tokenLeft}) {
			t.Errorf("deleted after a failure: %v", g)
		}
		storage.denyAll(nil)
		time.Sleep(70 * time.Minute)
		synctest.Wait()
		if g := gone(storage, tokenOther); len(g) != 1 {
			t.Error("what could not be read was not deleted later")
		}
		if n := strings.Count(out.String(), "cannot be deleted; will try again"); n != 1 {
			t.Errorf("%d complaints of a failed deletion:\n%s", n, out.String())
		}
	})
}

func TestCleaning(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		order := func(name string) string {
			c := devCerts(t, storage, nil)
			defer c.Close()
			if err := c.loader.config.ObtainCertSync(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			return certmagic.StorageKeys.SiteCert(keyspace.DevIssuer, name)
		}
		old := order("old.example")
		time.Sleep(10 * 24 * time.Hour)
		recent := order("recent.example")
		time.Sleep(devca.LeafLife + sweep.Grace - 10*24*time.Hour)
		const bad, staple = "certificates/flotilla-dev/bad.example/bad.example.crt", "ocsp/old.example-1234"
		put(t, storage, map[string]string{bad: "nonsense", staple: "nonsense"})

		out := maintained(t, storage)
		time.Sleep(sweep.CleanFirst + sweep.Every)
		synctest.Wait()
		if g := gone(storage, bad, old, recent, staple); !slices.Equal(g, []string{staple}) {
			t.Errorf("deleted: %v, want the staple alone", g)
		}
		if !strings.Contains(out.String(), "delete the directory") || !strings.Contains(out.String(), bad) {
			t.Errorf("no word about what to do:\n%s", out.String())
		}
		if err := storage.Delete(t.Context(), "certificates/flotilla-dev/bad.example"); err != nil {
			t.Fatal(err)
		}
		storage.fail.Store(-1) // a day is lost
		time.Sleep(sweep.CleanEvery)
		synctest.Wait()
		storage.fail.Store(0)
		if g := gone(storage, old, recent); len(g) > 0 {
			t.Errorf("deleted by a storage that fails: %v", g)
		}
		if !strings.Contains(out.String(), "was not cleaned") {
			t.Errorf("no word about the failure:\n%s", out.String())
		}
		time.Sleep(sweep.CleanEvery)
		synctest.Wait()
		if g := gone(storage, old, recent); !slices.Equal(g, []string{old}) {
			t.Errorf("deleted: %v, want %s", g, old)
		}
	})
}
