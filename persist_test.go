package flotilla

import (
	"context"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// snapshotIndex returns the index of a node's newest snapshot, 0 if it has none.
func snapshotIndex(t *testing.T, n *Node) uint64 {
	t.Helper()
	index, err := n.replica.Snapshots.Newest()
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// A node that is started alone after a power cut has the certificates that were stored a while
// before. So has one that was shut down in order.
func TestRestartAlone(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	const key = "certificates/ca.example/site.example/site.example.crt"
	for _, test := range []struct {
		name string
		calm time.Duration
		end  func(*Node) error // of the node that is started again
	}{
		{"power cut", replica.SnapshotQuiet + replica.SnapshotJitter + time.Second, (*Node).Close},
		{"shutdown", 0, func(n *Node) error { return n.Shutdown(context.Background()) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				nodes := trio(t, net, nil)
				time.Sleep(time.Minute)
				if i := snapshotIndex(t, nodes[2]); i != 0 {
					t.Fatalf("there is a snapshot at %d before anything has changed", i)
				}
				if err := nodes[0].Storage().Store(t.Context(), key, []byte("newest")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(test.calm)
				if err := test.end(nodes[2]); err != nil {
					t.Fatal(err)
				}
				for _, n := range nodes[:2] {
					net.Host(n.self.Name).Kill()
					n.Close()
				}
				alone := reviewReopen(t, nodes[2])
				got, err := alone.Storage().Load(t.Context(), key)
				if err != nil || string(got) != "newest" {
					t.Errorf("the node alone has %q, %v", got, err)
				}
			})
		})
	}
}

// Snapshots are kept apart, however often the certificates change, and an idle node takes none.
func TestSnapshotsRest(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		n := fleet(t, net, []string{"a"}, nil)[0]
		taken, last := 0, uint64(0)
		for range 300 {
			if err := n.Storage().Store(t.Context(), "certificates/ca/s/s.crt", make([]byte, 64<<10)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if i := snapshotIndex(t, n); i != last {
				taken, last = taken+1, i
			}
		}
		// Each takes 30 s that changes put it off, and 30 s of rest after it.
		if taken < 4 || taken > 6 {
			t.Errorf("%d snapshots in five minutes of changes, want five or so", taken)
		}
		time.Sleep(2 * time.Minute)
		last = snapshotIndex(t, n)
		if i := n.store.State().Index; last < i {
			t.Errorf("the last snapshot is at %d, and the state at %d", last, i)
		}
		time.Sleep(time.Hour)
		if i := snapshotIndex(t, n); i != last {
			t.Errorf("an idle node has taken another snapshot")
		}
	})
}
