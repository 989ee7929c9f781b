package rekey

import (
	"context"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// A step that only waits leaves no line about what failed before.
func TestTroubleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &work{Rekeyer: &Rekeyer{Config: Config{Log: testlog.None()}}}
		k := &task{trouble: make(map[string]string)}
		k.open.Add(1)
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2)
		results <- &waiting{"no", time.Second}
		results <- &waiting{d: time.Hour}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.drive(ctx, k, "a.example", make(chan struct{}, 1), func(context.Context) error { return <-results })
		}()
		lines := func() int {
			k.mu.Lock()
			defer k.mu.Unlock()
			return len(k.trouble)
		}
		synctest.Wait()
		if n := lines(); n != 1 {
			t.Errorf("while it fails there are %d lines", n)
		}
		time.Sleep(time.Minute)
		if n := lines(); n != 0 {
			t.Errorf("while it waits there are %d lines", n)
		}
		cancel()
		<-ended
	})
}
