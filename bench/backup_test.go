package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/backups"
)

// backupBytes is the size of the state that BenchmarkBackup backs up, the default of
// Config.MaxState but for what other records take.
const backupBytes = 60 << 20

// BenchmarkBackup backs up a state of 60 MiB, in records of 60 KiB, from a follower to a file. It
// measures a backup, its verification, and the latency of a writer of 4 KiB on the same node, with
// and without backups that follow one another. p99-times is the median of the quotients within one
// round. At last it measures from the restore of a backup until three empty nodes are ready.
func BenchmarkBackup(b *testing.B) {
	const record, ops = 60 << 10, 200
	c := newCluster(b)
	n := c.follower(b)
	value := make([]byte, record)
	for i := range backupBytes / record {
		if err := n.Storage().Store(b.Context(), fmt.Sprint("bench/backup/", i), value); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(10 * time.Second) // snapshots are taken
	file := filepath.Join(b.TempDir(), "backup")
	alone, beside := &side{name: "alone", put: writer(n)}, &side{name: "beside backups", put: writer(n)}
	alone.round(b, 1, ops)
	alone = &side{name: "alone", put: writer(n)}
	var made, verified []time.Duration
	b.ResetTimer()
	for range *rounds {
		began := time.Now()
		backUp(b, n, file)
		made = append(made, time.Since(began))
		began = time.Now()
		verify(b, c, file)
		verified = append(verified, time.Since(began))

		alone.round(b, 1, ops)
		ctx, stop := context.WithCancel(b.Context())
		var working sync.WaitGroup
		working.Go(func() {
			for ctx.Err() == nil {
				backUp(b, n, file)
			}
		})
		beside.round(b, 1, ops)
		stop()
		working.Wait()
	}
	backUp(b, n, file)
	ready := restored(b, c, file)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(median(made)), "backup-ms")
	b.ReportMetric(ms(median(verified)), "verify-ms")
	b.ReportMetric(ms(median(alone.p99)), "p99-ms")
	b.ReportMetric(ms(median(beside.p99)), "beside-p99-ms")
	b.ReportMetric(median(ratios(beside.p99, alone.p99)), "p99-times")
	b.ReportMetric(ms(ready), "restored-ms")
}

// backUp writes a backup to a file, as automatic backups do.
func backUp(b *testing.B, n *flotilla.Node, path string) {
	dir, err := backups.OpenDir(filepath.Dir(path))
	if err == nil {
		err = dir.Save(b.Context(), filepath.Base(path), func(w io.Writer) error {
			_, err := n.Backup(b.Context(), w)
			return err
		})
	}
	if err != nil {
		b.Error(err)
	}
}

func verify(b *testing.B, c *cluster, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := flotilla.VerifyBackup(bufio.NewReaderSize(f, 1<<20), c.secret); err != nil {
		b.Fatal(err)
	}
}

// restored closes the cluster, restores the backup, and returns how long it takes until three nodes
// are ready, two of which were empty.
func restored(b *testing.B, c *cluster, path string) time.Duration {
	b.Helper()
	for _, n := range c.nodes {
		n.Close()
	}
	sealed, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	addrs, dir := freeAddrs(b, 3), b.TempDir()
	began := time.Now()
	if _, err := flotilla.Restore(filepath.Join(dir, "0"), bytes.NewReader(sealed), c.secret); err != nil {
		b.Fatal(err)
	}
	startCluster(b, dir, addrs, c.secret)
	return time.Since(began)
}
