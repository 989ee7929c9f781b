package replica

import (
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A node ends also while its disk hangs, whether that is known before its files are closed or not.
func TestEndOnAHangingDisk(t *testing.T) {
	for name, busy := range map[string]time.Duration{"known": time.Hour, "not known": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				goOn, closed := make(chan struct{}), false
				r := &Runner{files: new(files), group: new(Group)}
				r.files.disk.Store(&Disk{
					busy:  func() time.Duration { return busy },
					close: func() error { <-goOn; closed = true; return nil },
				})
				began := time.Now()
				err := r.EndRaft()
				if err == nil || !strings.Contains(err.Error(), "files are open until it goes on") {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took > closePatience {
					t.Errorf("it took %v", took)
				}
				close(goOn)
				if synctest.Wait(); !closed {
					t.Error("the files are never closed")
				}
			})
		})
	}
}
