package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// nothing is a state machine without a state.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (nothing) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (nothing) Release()                            {}

// newBareRaft starts three instances of raft as its documentation shows: default configuration,
// TCP, raft-boltdb with default options. It returns a function that commits a value on the leader.
func newBareRaft(b testing.TB) func(ctx context.Context, key string, value []byte) error {
	b.Helper()
	addrs, dir := freeAddrs(b, 3), b.TempDir()
	var conf raft.Configuration
	for _, a := range addrs {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(a), Address: raft.ServerAddress(a)})
	}
	var all []*raft.Raft
	for i, a := range addrs {
		store, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, fmt.Sprint(i))})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { store.Close() })
		trans, err := raft.NewTCPTransport(a, nil, 3, 10*time.Second, io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		c := raft.DefaultConfig()
		c.LocalID, c.LogOutput = raft.ServerID(a), io.Discard
		snaps := raft.NewInmemSnapshotStore()
		if err := raft.BootstrapCluster(c, store, store, snaps, trans, conf); err != nil {
			b.Fatal(err)
		}
		r, err := raft.NewRaft(c, nothing{}, store, store, snaps, trans)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { r.Shutdown().Error(); trans.Close() })
		all = append(all, r)
	}
	for deadline := time.Now().Add(readyTimeout); ; {
		for _, r := range all {
			if r.State() == raft.Leader {
				return func(_ context.Context, _ string, value []byte) error { return r.Apply(value, 30*time.Second).Error() }
			}
		}
		if time.Now().After(deadline) {
			b.Fatal(errors.New("raft elects no leader"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}
