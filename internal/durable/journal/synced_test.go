package journal

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// slowDisk takes a while for each sync.
type slowDisk struct {
	OS
	pause time.Duration
}

func (d *slowDisk) Sync(f *os.File) error {
	time.Sleep(d.pause) // tests use it in bubbles only
	return d.OS.Sync(f)
}

// Options.Synced is told how long the disk took for each batch, and for nothing else.
func TestSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, synced := &slowDisk{}, new(meter.Histogram)
		j, _ := create(t, Options{Sys: disk, Synced: synced})
		if got := synced.Load().Count; got != 0 {
			t.Errorf("%d batches before the first", got)
		}
		for _, pause := range []time.Duration{time.Millisecond, 0, 2 * time.Second} {
			disk.pause = pause
			_, err := j.Append([]byte("batch"))
			must(t, err)
		}
		got := synced.Load()
		if diff := cmp.Diff([]any{uint64(3), 2001 * time.Millisecond}, []any{got.Count, got.Sum}); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
