package quarantine

import (
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// Copies are bounded in number, in size and in time.
func TestCopiesAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		storage := &certmagic.FileStorage{Path: t.TempDir()}
		q := New(Config{
			Certmagic: &certmagic.Config{Storage: storage}, Clocks: clocks.New(clocks.Config{Log: testlog.None()}), Log: testlog.None(),
		})
		copies := func() []string {
			all, err := storage.List(t.Context(), Place, false)
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		for range 2 * maxCopies {
			if _, err := q.keep(t.Context(), []state.Record{{Key: "certificates/x/a/a.crt", Value: make([]byte, 2*maxBytes)}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if n := len(copies()); n != maxCopies {
			t.Errorf("%d copies are kept, want %d", n, maxCopies)
		}
		for _, place := range copies() {
			if v, err := storage.Load(t.Context(), place+"/certificates/x/a/a.crt"); err != nil || len(v) != maxBytes {
				t.Errorf("%d bytes are kept of a record: %v", len(v), err)
			}
		}
		time.Sleep(maxAge - maxCopies*time.Minute/2)
		q.Sweep(t.Context())
		if n := len(copies()); n < maxCopies/2-1 || n > maxCopies/2+1 {
			t.Errorf("%d copies are left after their time, want half", n)
		}
	})
}
