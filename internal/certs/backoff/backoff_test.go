package backoff

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// opened returns the backoff of a cluster whose records are in the directory of a test.
func opened(t *testing.T) (*Backoff, certmagic.Storage) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	peek := func(key string) ([]byte, bool) {
		value, err := storage.Load(t.Context(), key)
		return value, err == nil
	}
	return New(peek, func() string { return "" }, storage, testlog.None()), storage
}

// The record of a limit is deleted some time after its end. A record that cannot be read is ignored.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, storage := opened(t)
		limit, garbage := ofIssuer("x", "all"), OfName("a.example")
		p.put(t.Context(), limit, Pause{Wait: time.Hour, Err: "slow down"})
		if err := storage.Store(t.Context(), garbage, []byte("{garbage")); err != nil {
			t.Fatal(err)
		}
		if err := p.For("a.example", nil, false); err != nil {
			t.Errorf("a record that cannot be read is heeded: %v", err)
		}
		for range 24 * 3 {
			p.Sweep(t.Context())
			time.Sleep(time.Hour)
		}
		for _, key := range []string{limit, garbage} {
			if storage.Exists(t.Context(), key) {
				t.Errorf("%s is left", key)
			}
		}
	})
}

// A wrong clock can at most double a pause.
func TestPauseWithWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const year = 365 * 24 * time.Hour
		for name, ahead := range map[string]time.Duration{"ahead": year, "right": 0} {
			at := time.Now().Add(ahead)
			p, storage := opened(t)
			key := OfName(name)
			record := fmt.Appendf(nil, `{"at":%q,"wait":%d,"failures":1}`, at.Format(time.RFC3339), time.Hour)
			if err := storage.Store(t.Context(), key, record); err != nil {
				t.Fatal(err)
			}
			if _, left := p.Get(key); left != time.Hour {
				t.Errorf("%s: %v are left at first", name, left)
			}
			time.Sleep(time.Hour - time.Second)
			if _, left := p.Get(key); left != time.Second {
				t.Errorf("%s: %v are left at last", name, left)
			}
			time.Sleep(time.Second)
			if _, left := p.Get(key); left != 0 {
				t.Errorf("%s: %v are left after its end", name, left)
			}
		}
	})
}
