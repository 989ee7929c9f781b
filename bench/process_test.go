//go:build unix

package bench

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/netlab/steps"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

var (
	idle   = flag.Duration("idle", 30*time.Second, "how long BenchmarkIdle watches the cluster")
	warmup = flag.Duration("warmup", 15*time.Second, "how long BenchmarkIdle waits before it measures")
	trials = flag.Int("trials", 0, "trials of the benchmarks that have trials; 0: 20 of a failover, 10 of a start, 4 of slow clients")
)

func tries(usual int) int {
	if *trials > 0 {
		return *trials
	}
	return usual
}

func reportTrials(b *testing.B, d []time.Duration) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(quantile(d, 0.5)), "median-ms")
	b.ReportMetric(ms(d[len(d)-1]), "max-ms")
}

// BenchmarkColdStart starts three processes with empty directories. It measures from the start of
// the first until the last is ready.
func BenchmarkColdStart(b *testing.B) {
	var took []time.Duration
	for range tries(10) {
		all := newProcesses(b, 3)
		began := time.Now()
		for _, p := range all {
			p.start(b)
		}
		awaitReady(b, all)
		took = append(took, time.Since(began))
		for _, p := range all {
			p.Kill()
		}
	}
	reportTrials(b, took)
}

// BenchmarkFailover kills the process of the leader by SIGKILL while each of the others writes one
// value after another. It measures from the kill to the end of the first write that began after it.
// Then it restarts the killed node for the next trial.
func BenchmarkFailover(b *testing.B) {
	all := newProcesses(b, 3)
	for _, p := range all {
		p.start(b)
	}
	awaitReady(b, all)
	var first, last []time.Duration
	for range tries(20) {
		dead := leaderOf(b, all)
		var (
			wg    sync.WaitGroup
			mu    sync.Mutex
			acks  []time.Time
			fails []error
		)
		killed := make(chan time.Time, len(all))
		for i, p := range all {
			if i == dead {
				continue
			}
			wg.Go(func() {
				var at time.Time
				for {
					select {
					case at = <-killed:
					default:
					}
					final := !at.IsZero() // this write began after the kill
					_, err := p.Ask("store bench/failover/" + string(rune('0'+i)))
					mu.Lock()
					if err != nil {
						fails = append(fails, err)
					} else if final {
						acks = append(acks, time.Now())
					}
					mu.Unlock()
					if final || err != nil {
						return
					}
				}
			})
		}
		time.Sleep(300 * time.Millisecond) // the writers write
		at := time.Now()
		all[dead].Cmd.Process.Kill()
		killed <- at
		killed <- at
		wg.Wait()
		if len(fails) > 0 {
			b.Fatal(fails)
		}
		one, two := acks[0].Sub(at), acks[1].Sub(at)
		first, last = append(first, min(one, two)), append(last, max(one, two))
		all[dead].Kill()
		all[dead].start(b)
		awaitReady(b, all)
	}
	reportTrials(b, first)
	b.ReportMetric(ms(median(last)), "both-median-ms")
}

// BenchmarkRoleFailover kills the holder of a role by SIGKILL while another node waits for the
// role. It measures from the kill to the grant. In half of the trials the holder also leads the
// cluster. Without a guard the role is free when the lease has expired. With Config.Guard, a death
// notice frees it. It prints when each step was done.
func BenchmarkRoleFailover(b *testing.B) {
	b.Run("expired", func(b *testing.B) { roleFailover(b) })
	b.Run("reported", func(b *testing.B) {
		if runtime.GOOS != "linux" {
			b.Skip("a guard needs Linux")
		}
		roleFailover(b, "FLOTILLA_GUARD=true")
	})
}

// roleFailover is BenchmarkRoleFailover with further variables in the environment of the nodes.
func roleFailover(b *testing.B, env ...string) {
	all := newProcesses(b, 3)
	for i, p := range all {
		log, err := os.Create(filepath.Join(b.TempDir(), fmt.Sprint(i)))
		if err != nil {
			b.Fatal(err)
		}
		defer log.Close()
		p.Log, p.Env = log, append(append(p.Env, stepsVariable+"=1"), env...)
		p.start(b)
	}
	awaitReady(b, all)
	// by whether the holder led
	took, seen := make(map[bool][]time.Duration), make(map[bool][]steps.Trial)
	for i := range tries(20) {
		role := fmt.Sprintf("trial%d", i)
		leader := leaderOf(b, all)
		leads := i%2 == 1
		holder, next := leader, (leader+1)%len(all)
		if !leads {
			holder, next = next, (leader+2)%len(all)
		}
		if _, err := all[holder].Ask("hold " + role); err != nil {
			b.Fatal(err)
		}
		granted := make(chan error, 1)
		go func() {
			_, err := all[next].Ask("hold " + role)
			granted <- err
		}()
		time.Sleep(300 * time.Millisecond) // the other node waits for the role
		began := time.Now()
		all[holder].Cmd.Process.Kill()
		if err := <-granted; err != nil {
			b.Fatal(err)
		}
		took[leads] = append(took[leads], time.Since(began))
		var logs []string
		for k, p := range all {
			if k != holder {
				log, err := os.ReadFile(p.Log.Name())
				if err != nil {
					b.Fatal(err)
				}
				logs = append(logs, string(log))
			}
		}
		seen[leads] = append(seen[leads], steps.Read(began, logs...))
		all[holder].Kill()
		all[holder].start(b)
		awaitReady(b, all)
	}
	fmt.Print(steps.Table("holder killed", seen[false]), steps.Table("holder killed that also led", seen[true]))
	slices.Sort(took[true])
	reportTrials(b, took[false])
	b.ReportMetric(ms(median(took[true])), "leads-median-ms")
	b.ReportMetric(ms(took[true][len(took[true])-1]), "leads-max-ms")
}

// BenchmarkIdle leaves a cluster alone and reports its costs: the processor time of the leader and
// of a follower (their mean) in percent of one core, and the growth of the log in entries. At the
// same time three processes exchange messages as often as nodes renew leases, and do nothing else:
// their mean is a bound for this machine.
func BenchmarkIdle(b *testing.B) {
	all := newProcesses(b, 3)
	for _, p := range all {
		p.start(b)
	}
	awaitReady(b, all)
	bare := newExchange(b, renewal(b))
	time.Sleep(*warmup)
	before, began := make([]vitals, len(all)), time.Now()
	for i, p := range all {
		before[i] = p.vitals(b)
	}
	var exchanged time.Duration
	for _, p := range bare {
		exchanged -= p.vitals(b).CPU
	}
	time.Sleep(*idle)
	for _, p := range bare {
		exchanged += p.vitals(b).CPU
	}
	var index, termBefore, termAfter uint64
	var leader, followers float64
	took := time.Since(began)
	for i, p := range all {
		after := p.vitals(b)
		percent := 100 * float64(after.CPU-before[i].CPU) / float64(took)
		if after.ID == after.Leader {
			leader += percent
		} else {
			followers += percent / float64(len(all)-1)
		}
		index = max(index, before[i].Index)
		termBefore, termAfter = max(termBefore, before[i].Term), max(termAfter, after.Term)
	}
	for _, p := range all {
		p.Kill()
	}
	var last uint64 // from the files, which also have entries that were not applied
	for _, p := range all {
		last = max(last, lastIndex(b, p.Dir))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(leader, "leader-%core")
	b.ReportMetric(followers, "follower-%core")
	b.ReportMetric(100*float64(exchanged)/float64(took)/float64(len(bare)), "bare-%core")
	b.ReportMetric(float64(last-index), "entries")
	b.ReportMetric(float64(termAfter-termBefore), "elections")
	b.ReportMetric(took.Seconds(), "seconds")
}

// renewal returns how often nodes renew leases, by the timing of FLOTILLA_TIMING.
func renewal(b *testing.B) time.Duration {
	b.Helper()
	switch name := os.Getenv("FLOTILLA_TIMING"); name {
	case "", "lan":
		return timing.Of(600 * time.Millisecond).Renewal()
	case "fast":
		return timing.Of(200 * time.Millisecond).Renewal()
	case "wan":
		return timing.Of(3 * time.Second).Renewal()
	case "turbo":
		return timing.Of(90 * time.Millisecond).Renewal()
	default:
		b.Fatalf("there is no timing %q", name)
		return 0
	}
}

// lastIndex reads the last index of the log of a node that does not run.
func lastIndex(b *testing.B, path string) uint64 {
	b.Helper()
	dir, err := durable.Lock(path)
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	log, err := dir.OpenLog(durable.LogOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	var last uint64
	if err := log.Run(func() (err error) { last, err = log.LastIndex(); return err }); err != nil {
		b.Fatal(err)
	}
	return last
}
