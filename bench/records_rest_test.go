//go:build unix

package bench

import (
	"testing"
	"time"
)

// BenchmarkRecordsIdle leaves two clusters of three processes alone at the same time. One has
// 100,000 entries of 100 bytes with a TTL that does not end, the other has none. It reports their
// processor time in percent of one core, for the leader and a follower (their mean), and what the
// entries add.
func BenchmarkRecordsIdle(b *testing.B) {
	with, without := newProcesses(b, 3), newProcesses(b, 3)
	for _, all := range [][]*process{with, without} {
		for _, p := range all {
			p.start(b)
		}
		awaitReady(b, all)
	}
	if _, err := with[0].Ask("entries 100000"); err != nil {
		b.Fatal(err)
	}
	time.Sleep(*warmup)
	before, began := [][]vitals{vitalsOf(b, with), vitalsOf(b, without)}, time.Now()
	time.Sleep(*idle)
	after := [][]vitals{vitalsOf(b, with), vitalsOf(b, without)}
	took := time.Since(began)
	var leader, follower [2]float64
	for c := range after {
		for i, v := range after[c] {
			percent := 100 * float64(v.CPU-before[c][i].CPU) / float64(took)
			if v.ID == v.Leader {
				leader[c] += percent
			} else {
				follower[c] += percent / float64(len(with)-1)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(leader[0], "leader-%core")
	b.ReportMetric(leader[0]-leader[1], "leader-more-%core")
	b.ReportMetric(follower[0], "follower-%core")
	b.ReportMetric(follower[0]-follower[1], "follower-more-%core")
	b.ReportMetric(float64(after[0][0].Resident)/(1<<20), "resident-MiB")
	b.ReportMetric(float64(after[1][0].Resident)/(1<<20), "empty-resident-MiB")
	b.ReportMetric(took.Seconds(), "seconds")
}

func vitalsOf(b *testing.B, all []*process) (v []vitals) {
	b.Helper()
	for _, p := range all {
		v = append(v, p.vitals(b))
	}
	return v
}
