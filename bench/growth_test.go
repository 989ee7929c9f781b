//go:build unix

package bench

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

var (
	growthTo   = flag.Float64("growth-to", 1, "part of the largest sizes up to which the benchmarks Growth… go")
	growthIdle = flag.Duration("growth-idle", 10*time.Second, "how long the benchmarks Growth… watch nodes at rest")
)

// grow runs f for each size, as long as it is not too large.
func grow(b *testing.B, what string, sizes []int, f func(b *testing.B, size int)) {
	for _, size := range sizes {
		if float64(size) <= *growthTo*float64(sizes[len(sizes)-1]) {
			b.Run(fmt.Sprintf("%s=%d", what, size), func(b *testing.B) { f(b, size) })
		}
	}
}

// BenchmarkGrowthRecords has records of 4 KiB with that many MiB in all.
func BenchmarkGrowthRecords(b *testing.B) {
	grow(b, "MiB", []int{1, 4, 16, 64}, func(b *testing.B, size int) {
		c := newGrowing(b, 3)
		c.ask(0, fmt.Sprintf("fill %d %d", size<<20/valueSize, valueSize))
		c.report()
	})
}

// BenchmarkGrowthNames has what certmagic stores for that many names.
func BenchmarkGrowthNames(b *testing.B) {
	grow(b, "names", []int{10, 100, 1000, 10_000, 100_000}, func(b *testing.B, size int) {
		c := newGrowing(b, 3)
		c.ask(0, fmt.Sprintf("names %d", size))
		c.report()
	})
}

// BenchmarkGrowthNodes has that many nodes. Five of them vote.
func BenchmarkGrowthNodes(b *testing.B) {
	grow(b, "nodes", []int{3, 5, 9, 15, 25}, func(b *testing.B, size int) { newGrowing(b, size).report() })
}

// BenchmarkGrowthRoles has a node with that many roles, for all of which another node waits. The
// holder shuts down, and then the next holder is killed. Each time it measures until the other node
// has the first and the last of them.
func BenchmarkGrowthRoles(b *testing.B) {
	grow(b, "roles", []int{1, 10, 100, 1000, 10_000}, func(b *testing.B, size int) {
		c := newGrowing(b, 3)
		leader := leaderOf(b, c.nodes)
		holder, next := (leader+1)%3, (leader+2)%3
		want := fmt.Sprintf("want %d", size)
		wait := func(node int) {
			c.ask(node, want)
			time.Sleep(*growthIdle) // it begins to wait for all of them
		}
		c.ask(holder, want)
		c.ask(holder, "held")
		wait(next)
		c.report(leader, next)

		began := time.Now()
		left := make(chan error, 1)
		go func() {
			_, err := c.nodes[holder].Ask("leave")
			left <- err
		}()
		c.moved(next, began, "planned-first-ms", "planned-last-ms")
		if err := <-left; err != nil {
			b.Fatal(err)
		}
		c.restart(holder)
		wait(holder)
		began = time.Now()
		c.nodes[next].Kill()
		c.moved(holder, began, "first-ms", "last-ms")
	})
}

// growing is a cluster of processes with files, for one size.
type growing struct {
	b     *testing.B
	nodes []*process
}

// newGrowing starts n nodes and waits until they are ready. Three form the cluster.
func newGrowing(b *testing.B, n int) *growing {
	b.Helper()
	c := &growing{b: b, nodes: newProcesses(b, n)}
	log, err := os.CreateTemp(b.TempDir(), "log")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { log.Close() })
	for i, p := range c.nodes {
		p.Env, p.Log = append(p.Env, "FLOTILLA_EXPECT=3", "FLOTILLA_MAX_STATE=1073741824"), log
		p.start(b)
		if i == 2 {
			awaitReady(b, c.nodes[:3])
		}
	}
	awaitReady(b, c.nodes)
	return c
}

func (c *growing) ask(i int, line string) string {
	c.b.Helper()
	answer, err := c.nodes[i].Ask(line)
	if err != nil {
		c.b.Fatal(err)
	}
	return answer
}

// report measures the nodes of those numbers, or all: processor time and memory of nodes at rest,
// the time of a write on a follower, and the restart of one, medians of three. If there are
// numbers, it restarts none.
func (c *growing) report(numbers ...int) {
	b := c.b
	b.Helper()
	watched := c.nodes
	if len(numbers) > 0 {
		watched = nil
		for _, i := range numbers {
			watched = append(watched, c.nodes[i])
		}
	}
	time.Sleep(2 * time.Second) // what the load has left behind ends
	before, began := make([]vitals, len(watched)), time.Now()
	for i, p := range watched {
		before[i] = p.vitals(b)
	}
	time.Sleep(*growthIdle)
	took := time.Since(began)
	var idle, rss float64
	for i, p := range watched {
		v := p.vitals(b)
		idle += 100 * float64(v.CPU-before[i].CPU) / float64(took) / float64(len(watched))
		rss += mib(v.Resident) / float64(len(watched))
	}
	follower := (leaderOf(b, c.nodes) + len(c.nodes) - 1) % len(c.nodes)
	var p50, p99 []time.Duration
	for range 3 {
		var s []time.Duration
		if err := json.Unmarshal([]byte(c.ask(follower, "write 200")), &s); err != nil {
			b.Fatal(err)
		}
		p50, p99 = append(p50, s[0]), append(p99, s[1])
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(idle, "idle-%core")
	b.ReportMetric(rss, "rss-MiB")
	b.ReportMetric(ms(median(p50)), "p50-ms")
	b.ReportMetric(ms(median(p99)), "p99-ms")
	if len(numbers) > 0 {
		return
	}
	c.restart(follower)
}

// restart kills and starts a node three times, and reports the median until it is ready.
func (c *growing) restart(i int) {
	c.b.Helper()
	var took []time.Duration
	for range 3 {
		c.nodes[i].Kill()
		began := time.Now()
		c.nodes[i].start(c.b)
		c.ask(i, "ready")
		took = append(took, time.Since(began))
	}
	c.b.ReportMetric(ms(median(took)), "restart-ms")
}

// moved waits until a node has all roles that it wants, and reports when it had the first and the
// last.
func (c *growing) moved(i int, began time.Time, first, last string) {
	c.b.Helper()
	var got [2]time.Time
	if err := json.Unmarshal([]byte(c.ask(i, "held")), &got); err != nil {
		c.b.Fatal(err)
	}
	c.b.ReportMetric(ms(got[0].Sub(began)), first)
	c.b.ReportMetric(ms(got[1].Sub(began)), last)
}
