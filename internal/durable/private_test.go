package durable

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// TestPrivateBesideUpkeep: the log's upkeep makes and removes segments while the directory is made
// private.
func TestPrivateBesideUpkeep(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no such rights")
	}
	d := lock(t, disktest.MemDir(t))
	segment := filepath.Join(d.path, "raft-0000000000000009.log")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.WriteFile(segment+tmpSuffix, nil, 0o600)
			_ = os.Rename(segment+tmpSuffix, segment)
			_ = os.Remove(segment)
		}
	}()
	defer func() { close(stop); <-stopped }()
	for range 1000 {
		must(t, os.Chmod(d.path, 0o755))
		exposed, err := d.MakePrivate()
		must(t, err)
		fi, err := os.Stat(d.path)
		must(t, err)
		if len(exposed) > 0 || fi.Mode().Perm() != 0o700 {
			t.Fatalf("the mode is %v, exposed are %v", fi.Mode(), exposed)
		}
	}
}
