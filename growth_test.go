package flotilla

import (
	"bytes"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// dirBytes returns the size of the files in a directory.
func dirBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	mustDo(t, filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	}))
	return n
}

// A directory is as large as what it holds, not as what was ever written to it. Neither is it made
// smaller at the end, when the machine waits.
func TestDirectoryIsBounded(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	writes := Cases(t, 600, 80)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		value := bytes.Repeat([]byte("x"), 1<<20)
		largest := int64(0)
		for range writes {
			storeWithin(t, 10*time.Second, nodes[1], "k", string(value))
			for _, n := range nodes {
				largest = max(largest, dirBytes(t, n.cfg.Dir))
			}
		}
		if largest > 64<<20 {
			t.Errorf("a directory has grown to %d MiB for a state of 1 MiB", largest>>20)
		}
		t.Logf("the largest directory had %d MiB", largest>>20)
		for _, n := range nodes {
			before := time.Now()
			mustDo(t, n.Close())
			if took := time.Since(before); took > time.Second {
				t.Errorf("Close took %v", took)
			}
		}
	})
}
