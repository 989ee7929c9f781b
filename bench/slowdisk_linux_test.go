package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/bench/internal/proc"
	"github.com/flotilla-ha/flotilla/bench/internal/slowsync"
)

var slowOps = flag.Int("slow-ops", 100, "writes of each side in a round of BenchmarkSlowDisk")

// BenchmarkSlowDisk is BenchmarkStoreFollower with a disk in memory, of which every fsync and
// fdatasync takes a given time. Both systems run in one process of their own, whose syncs wait in
// the kernel. syncs is how many there are on three nodes for each write, by flotilla and by raft.
func BenchmarkSlowDisk(b *testing.B) {
	p := &process{&proc.Process{Env: append(os.Environ(), proc.RoleVariable+"=slow disk", "TMPDIR="+memory(b))}}
	p.start(b)
	defer p.Kill()
	trap, err := p.Ask("trap")
	if err != nil {
		b.Skip(err)
	}
	fd, err := strconv.Atoi(trap)
	if err != nil {
		b.Fatal(err)
	}
	// A waiter needs a processor of Go's as soon as its time is over, while others are in the kernel.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(64))
	disk, err := slowsync.Attach(p.Cmd.Process.Pid, fd)
	if err != nil {
		b.Skip(err)
	}
	for _, delay := range []time.Duration{0, 100 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond} {
		b.Run(fmt.Sprintf("fsync-ms=%v", ms(delay)), func(b *testing.B) {
			disk.SetDelay(delay)
			bare, ours := &side{name: "raft"}, &side{name: "flotilla"}
			var syncs [2]int64
			for range *rounds {
				for i, s := range []*side{bare, ours} {
					before := disk.Syncs()
					s.remote(b, p, *slowOps)
					syncs[i] += disk.Syncs() - before
				}
			}
			if err := disk.Err(); err != nil {
				b.Fatal(err)
			}
			writes := float64(*rounds * *slowOps)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(ratios(ours.p50, bare.p50)), "ratio")
			b.ReportMetric(ms(median(ours.p50)), "p50-ms")
			b.ReportMetric(ms(median(ours.p99)), "p99-ms")
			b.ReportMetric(ms(median(bare.p50)), "raft-p50-ms")
			b.ReportMetric(ms(median(bare.p99)), "raft-p99-ms")
			b.ReportMetric(float64(syncs[1])/writes, "syncs")
			b.ReportMetric(float64(syncs[0])/writes, "raft-syncs")
		})
	}
}

// memory returns a directory in memory.
func memory(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "bench")
	if err != nil {
		b.Skip("no file system in memory: ", err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// remote has a slow process do a round, with one writer.
func (s *side) remote(b *testing.B, p *process, ops int) {
	b.Helper()
	line, err := p.Ask(fmt.Sprintf("%s %d", s.name, ops))
	if err != nil {
		b.Fatal(err)
	}
	var done side
	if err := json.Unmarshal([]byte(line), &[]any{&done.p50, &done.p99, &done.rate}); err != nil {
		b.Fatal(err)
	}
	s.p50, s.p99, s.rate = append(s.p50, done.p50...), append(s.p99, done.p99...), append(s.rate, done.rate...)
}

// runSlowDisk is the process with the slow disk: both systems, which do rounds as they are told.
func runSlowDisk(context.Context) error {
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return in.Err()
	}
	trap, err := slowsync.Trap()
	if err != nil {
		return err
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	// Three nodes have three times the processors of one. A thread that waits for the disk keeps one
	// for a while.
	runtime.GOMAXPROCS(3 * runtime.NumCPU())
	fmt.Println(trap)
	served := false
	testing.Benchmark(func(quiet *testing.B) {
		if served {
			return
		}
		served = true
		b := loud{quiet}
		sides := make(map[string]store)
		sides["raft"], sides["flotilla"] = newBareRaft(b), writer(newCluster(b).follower(b))
		for name, put := range sides {
			(&side{name: name, put: put}).round(b, 1, 100) // fills connections and caches
		}
		for in.Scan() {
			var s side
			var ops int
			if _, err := fmt.Sscan(in.Text(), &s.name, &ops); err != nil {
				b.Fatal(err)
			}
			s.put = sides[s.name]
			s.round(b, 1, ops)
			line, err := json.Marshal([]any{s.p50, s.p99, s.rate})
			if err != nil {
				b.Fatal(err)
			}
			fmt.Println(string(line))
		}
	})
	return in.Err()
}

// loud is a benchmark outside of go test, whose failures are shown.
type loud struct{ *testing.B }

// Fatal is that of testing.B.
func (l loud) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	l.FailNow()
}

// Fatalf is that of testing.B.
func (l loud) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	l.FailNow()
}
