package flotilla

import (
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The tests in this file show with whole nodes what the meters of internal/replica count.

// A leader knows how long its writes wait for the readers, and how far each member is behind.
func TestReadersWaitAndLag(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		net.SetLatency(5 * time.Millisecond)
		nodes := trio(t, net, nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		meters, before := leader.replica.Meters, leader.replica.Meters.ReadersWait.Load()
		mustStore(t, leader, "k", "v")
		waited := meters.ReadersWait.Load()
		if n, sum := waited.Count-before.Count, waited.Sum-before.Sum; n != 1 || sum < 10*time.Millisecond || sum > 50*time.Millisecond {
			t.Errorf("%d batches waited for their readers, for %v; want one, for a round trip", n, sum)
		}
		if got := meters.WritesOK.Load(); got.Count == 0 || meters.WritesFailed.Load().Count != 0 {
			t.Errorf("%d writes, and %d failed", got.Count, meters.WritesFailed.Load().Count)
		}
		if got := others[0].replica.Meters.ReadersWait.Load().Count; got != 0 {
			t.Errorf("%d batches wait at a node that does not lead", got)
		}

		wantLags := func(want map[string]uint64) {
			t.Helper()
			got := leader.replica.Lags()
			if len(got) != len(want) {
				t.Errorf("the lags are %v, want %v", got, want)
			}
			for _, l := range got {
				if n, ok := want[l.Node]; !ok || n != l.Entries {
					t.Errorf("the lags are %v, want %v", got, want)
				}
			}
		}
		time.Sleep(time.Second)
		wantLags(map[string]uint64{others[0].self.ID: 0, others[1].self.ID: 0})
		if got := others[0].replica.Lags(); got != nil {
			t.Errorf("a node that does not lead knows the lags %v", got)
		}
		net.Isolate(others[1].self.Name)
		time.Sleep(5 * time.Second)
		last := leader.replica.LastIndex()
		mustStore(t, leader, "k", "1")
		mustStore(t, leader, "k", "2")
		index, _ := leader.replica.Port.Transport().Match(others[1].self.ID, leader.replica.Leading.Load().Term)
		if now := leader.replica.LastIndex(); now != last+2 || index == 0 || index > last {
			t.Fatalf("the log ends with %d, and ended with %d; the member has %d", now, last, index)
		}
		wantLags(map[string]uint64{others[0].self.ID: 0, others[1].self.ID: last + 2 - index})
		net.Heal()
	})
}

// All nodes see that the leader changes, and how long there was none.
func TestElectionsAreTimed(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		net.SetLatency(time.Millisecond)
		nodes := trio(t, net, nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		for _, n := range nodes {
			if got := n.replica.Meters.LeaderChanges.Load(); got != 0 {
				t.Errorf("%s has seen %d changes of the leader at first", n.self.Name, got)
			}
		}
		net.Isolate(leader.self.Name)
		start := time.Now()
		mustStore(t, others[0], "k", "v")
		took := time.Since(start)
		net.Heal()
		time.Sleep(5 * time.Second)
		for _, n := range nodes {
			m := n.replica.Meters
			election := m.Election.Load()
			if m.LeaderChanges.Load() != 1 || election.Count != 1 || election.Sum <= 0 {
				t.Errorf("%s has seen %d changes and %d elections, of %v", n.self.Name, m.LeaderChanges.Load(), election.Count, election.Sum)
			}
			if n != leader && election.Sum > took {
				t.Errorf("%s knew of no leader for %v, and all took %v", n.self.Name, election.Sum, took)
			}
		}
	})
}

// A node knows how its disk fares.
func TestDiskIsMeasured(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		n := trio(t, simnet.New(), nil)[0]
		before := n.replica.LogSync().Count
		all, _ := n.replica.Snapshots.LogBytes()
		mustStore(t, n, "k", "v")
		if got := n.replica.LogSync().Count; got <= before || before == 0 {
			t.Errorf("%d syncs of the log, and %d before a write", got, before)
		}
		if got, behind := n.replica.Snapshots.LogBytes(); got <= all || behind == 0 || behind > got {
			t.Errorf("the log has %d bytes, %d of them without a snapshot, and %d before a write", got, behind, all)
		}
		time.Sleep(2 * (replica.SnapshotQuiet + replica.SnapshotJitter))
		n.replica.Snapshots.Take(t.Context())
		if taken := n.replica.SnapshotTaken(); taken.Before(start) || taken.After(time.Now()) {
			t.Errorf("the newest snapshot was taken at %v, want a time after %v", taken, start)
		}
		if _, behind := n.replica.Snapshots.LogBytes(); behind != 0 {
			t.Errorf("%d bytes are behind a snapshot of all", behind)
		}
	})
}

// A node without a directory has neither.
func TestNoDiskIsMeasured(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := fleet(t, simnet.New(), []string{"a"}, func(c *Config) { c.Dir = "" })[0]
		mustStore(t, n, "k", "v")
		if got, taken := n.replica.LogSync(), n.replica.SnapshotTaken(); got.Count != 0 || len(got.Buckets) == 0 || !taken.IsZero() {
			t.Errorf("%d syncs, and a snapshot at %v", got.Count, taken)
		}
	})
}
