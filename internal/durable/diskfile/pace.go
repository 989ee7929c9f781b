package diskfile

import (
	"os"
	"time"
)

// syncEvery is how many bytes of a large file may wait for the disk.
const syncEvery = 512 << 10

// Pace writes a large file to the disk as it comes. If all of it was synced at the end, its
// hundreds of megabytes would delay the log's next write, and with it every writer of the cluster.
// The zero Pace is ready. It belongs to one goroutine at a time.
type Pace struct{ dirty int }

// Wrote is called after n bytes were written to f. Now and then it syncs f, and then leaves the
// disk to others for as long as that took.
func (p *Pace) Wrote(f *os.File, n int) error {
	if p.dirty += n; p.dirty < syncEvery {
		return nil
	}
	p.dirty = 0
	start := time.Now()
	err := f.Sync()
	time.Sleep(time.Since(start))
	return err
}
