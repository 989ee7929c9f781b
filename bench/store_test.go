package bench

import (
	"flag"
	"testing"
)

var rounds = flag.Int("rounds", 9, "rounds of the benchmarks that compare")

// BenchmarkStoreFollower compares two writers of 4 KiB. One writes on a follower of flotilla, and
// returns when every node has applied the write. The other writes on the leader of raft and
// raft-boltdb without flotilla, and returns when the leader has applied it. The rounds alternate.
// The figures are medians over the rounds; ratio is the median of the quotients within one round.
func BenchmarkStoreFollower(b *testing.B) {
	const ops = 200
	disk := &side{name: "disk", put: newDisk(b)}
	bare := &side{name: "raft", put: newBareRaft(b)}
	ours := &side{name: "flotilla", put: writer(newCluster(b).follower(b))}
	for _, s := range []*side{bare, ours} {
		(&side{name: s.name, put: s.put}).round(b, 1, ops) // fills connections and caches
	}
	b.ResetTimer()
	for range *rounds {
		disk.round(b, 1, ops)
		bare.round(b, 1, ops)
		ours.round(b, 1, ops)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratios(ours.p50, bare.p50)), "ratio")
	b.ReportMetric(ms(median(ours.p50)), "p50-ms")
	b.ReportMetric(ms(median(ours.p99)), "p99-ms")
	b.ReportMetric(ms(median(bare.p50)), "raft-p50-ms")
	b.ReportMetric(ms(median(bare.p99)), "raft-p99-ms")
	b.ReportMetric(ms(median(disk.p50)), "fsync-p50-ms")
}

// BenchmarkStore64 compares 64 writers of 4 KiB with as many through etcd's client: on a follower
// of each, and on the leader of each. One writer on a follower of flotilla is there too. The rounds
// alternate. The figures with times are medians of the quotients within one round. Times-one,
// times-etcd and times-etcd-leader are of the writers on flotilla's follower: by the one there, and
// by etcd's on its follower and on its leader. Leader-times-etcd-leader is of those on the leaders.
func BenchmarkStore64(b *testing.B) {
	const writers, ops, few = 64, 3200, 200
	follower, leader := newEtcd(b)
	etcdF := &side{name: "etcd, follower", put: follower}
	etcdL := &side{name: "etcd, leader", put: leader}
	c := newCluster(b)
	one := &side{name: "flotilla, one", put: writer(c.follower(b))}
	many := &side{name: "flotilla, many", put: writer(c.follower(b))}
	manyL := &side{name: "flotilla, leader", put: writer(c.leader(b))}
	for _, s := range []*side{etcdF, many} {
		(&side{name: s.name, put: s.put}).round(b, writers, ops)
	}
	b.ResetTimer()
	for range *rounds {
		one.round(b, 1, few)
		etcdF.round(b, writers, ops)
		many.round(b, writers, ops)
		etcdL.round(b, writers, ops)
		manyL.round(b, writers, ops)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(many.rate), "ops/s")
	b.ReportMetric(ms(median(many.p99)), "p99-ms")
	b.ReportMetric(median(manyL.rate), "leader-ops/s")
	b.ReportMetric(ms(median(manyL.p99)), "leader-p99-ms")
	b.ReportMetric(median(one.rate), "one-ops/s")
	b.ReportMetric(median(etcdF.rate), "etcd-ops/s")
	b.ReportMetric(ms(median(etcdF.p99)), "etcd-p99-ms")
	b.ReportMetric(median(etcdL.rate), "etcd-leader-ops/s")
	b.ReportMetric(ms(median(etcdL.p99)), "etcd-leader-p99-ms")
	b.ReportMetric(median(ratios(many.rate, one.rate)), "times-one")
	b.ReportMetric(median(ratios(many.rate, etcdF.rate)), "times-etcd")
	b.ReportMetric(median(ratios(many.rate, etcdL.rate)), "times-etcd-leader")
	b.ReportMetric(median(ratios(manyL.rate, etcdL.rate)), "leader-times-etcd-leader")
}
