package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// fsm keeps the commands that it gets. It belongs to raft's goroutine for the FSM. Tests look at it
// when that has ended, or in a bubble that is idle.
type fsm struct{ data []byte }

func (f *fsm) Apply(e *raft.Log) any { f.data = append(f.data, e.Data...); return nil }

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return fsmSnapshot(bytes.Clone(f.data)), nil }

func (f *fsm) Restore(r io.ReadCloser) (err error) { f.data, err = io.ReadAll(r); return err }

type fsmSnapshot []byte

func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s fsmSnapshot) Release() {}

// node is one raft server.
type node struct {
	*raft.Raft
	fsm   *fsm
	trans *raft.InmemTransport
}

func config(id string) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.Logger = hclog.NewNullLogger()
	return c
}

func start(t *testing.T, id string, logs raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore) *node {
	t.Helper()
	n := &node{fsm: new(fsm)}
	_, n.trans = raft.NewInmemTransport(raft.ServerAddress(id))
	r, err := raft.NewRaft(config(id), n.fsm, logs, stable, snaps, delayed{n.trans})
	must(t, err)
	n.Raft = r
	return n
}

// delayed takes time for each request. Otherwise a livelock would stop the bubble's clock.
type delayed struct{ *raft.InmemTransport }

func (d delayed) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (d delayed) AppendEntries(
	id raft.ServerID,
	to raft.ServerAddress,
	req *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse,
) error {
	<-time.After(time.Millisecond)
	return d.InmemTransport.AppendEntries(id, to, req, resp)
}

func (d delayed) InstallSnapshot(
	id raft.ServerID,
	to raft.ServerAddress,
	req *raft.InstallSnapshotRequest,
	resp *raft.InstallSnapshotResponse,
	r io.Reader,
) error {
	<-time.After(100 * time.Millisecond)
	return d.InmemTransport.InstallSnapshot(id, to, req, resp, r)
}

func voters(ids ...string) (c raft.Configuration) {
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return c
}

// TestVoteHole: raft stores the term of a vote and its candidate in two writes. After a crash
// between them, bare raft-boltdb holds a vote that was never given, and raft repeats it without
// looking at the candidate's log (hashicorp/raft issue 661).
func TestVoteHole(t *testing.T) {
	// The node voted for y in term 5, and crashes in the middle of its vote for z in term 6.
	vote := func(t *testing.T, logs raft.LogStore, stable raft.StableStore) {
		must(t,
			logs.StoreLog(
				&raft.Log{
					Index: 1,
					Term:  1,
					Type:  raft.LogConfiguration,
					Data:  raft.EncodeConfiguration(voters("x", "y", "z")),
				},
			),
		)
		must(t, logs.StoreLogs(disktest.Entries(2, 101, 5, 5)))
		must(t, stable.SetUint64([]byte(disktest.KeyTerm), 5))
		must(t, stable.SetUint64([]byte(disktest.KeyVoteTerm), 5))
		must(t, stable.Set([]byte(disktest.KeyCandidate), []byte("y")))
		must(t, stable.SetUint64([]byte(disktest.KeyTerm), 6))
		must(t, stable.SetUint64([]byte(disktest.KeyVoteTerm), 6))
	}
	granted := func(t *testing.T, logs raft.LogStore, stable raft.StableStore) (granted bool) {
		synctest.Test(t, func(t *testing.T) {
			n := start(t, "x", logs, stable, raft.NewInmemSnapshotStore())
			_, y := raft.NewInmemTransport("y")
			y.Connect("x", n.trans)
			var resp raft.RequestVoteResponse
			must(t, y.RequestVote("x", "x", &raft.RequestVoteRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("y"), Addr: []byte("y")},
				Term:      6, LastLogIndex: 1, LastLogTerm: 1,
			}, &resp))
			granted = resp.Granted
			must(t, n.Shutdown().Error())
		})
		return granted
	}
	t.Run("raft-boltdb", func(t *testing.T) {
		file := filepath.Join(disktest.MemDir(t), logName)
		s, err := raftboltdb.NewBoltStore(file)
		must(t, err)
		vote(t, s, s)
		must(t, s.Close())
		s, err = raftboltdb.NewBoltStore(file)
		must(t, err)
		defer s.Close()
		if !granted(t, s, s) {
			t.Error("raft has fixed this: no vote for a log that is 100 entries short")
		}
	})
	t.Run("durable", func(t *testing.T) {
		d := lock(t, disktest.MemDir(t))
		l := openTestLog(t, d, true)
		vote(t, l, l)
		must(t, l.Close())
		l = openTestLog(t, d, false)
		if granted(t, l, l) {
			t.Error("a vote was given to a log that is 100 entries short")
		}
		must(t, l.Close())
	})
}

// TestSnapshotLivelock: the log of a follower conflicts with the snapshot that it gets. Bare raft
// keeps the log, refuses what follows and gets the snapshot for ever (hashicorp/raft issue 697).
func TestSnapshotLivelock(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	conf := voters("a", "b", "x")
	bootstrap := &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(conf)}
	command := func(i, term uint64) *raft.Log {
		return &raft.Log{Index: i, Term: term, Data: fmt.Appendf(nil, "%d.%d ", i, term)}
	}
	// The committed log, of which a and b have a snapshot at 18; x has other entries since 11.
	var committed, conflicting []*raft.Log
	var want strings.Builder
	for i := uint64(2); i <= 30; i++ {
		e, c := command(i, 1), command(i, 1)
		if i > 10 {
			e, c = command(i, 4), command(i, 3)
		}
		committed, conflicting = append(committed, e), append(conflicting, c)
		want.Write(e.Data)
	}
	run := func(t *testing.T, last uint64, logs raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore) (caughtUp bool) {
		must(t, logs.StoreLogs(append([]*raft.Log{bootstrap}, conflicting[:last-1]...)))
		must(t, stable.SetUint64([]byte(disktest.KeyTerm), 3))
		synctest.Test(t, func(t *testing.T) {
			var nodes []*node
			for _, id := range []string{"a", "b"} {
				s, sn := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
				must(t, s.StoreLogs(committed[17:]))
				must(t, s.SetUint64([]byte(disktest.KeyTerm), 4))
				_, trans := raft.NewInmemTransport("a")
				sink, err := sn.Create(1, 18, 4, conf, 1, trans)
				must(t, err)
				for _, e := range committed[:17] {
					_, err = sink.Write(e.Data)
					must(t, err)
				}
				must(t, sink.Close())
				nodes = append(nodes, start(t, id, s, s, sn))
			}
			nodes = append(nodes, start(t, "x", logs, stable, snaps))
			for _, n := range nodes {
				for _, m := range nodes {
					n.trans.Connect(m.trans.LocalAddr(), m.trans)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			x := nodes[2]
			for _, n := range nodes {
				if n.State() == raft.Leader && n == x {
					t.Error("a node that lacks committed entries leads")
				}
			}
			caughtUp = x.AppliedIndex() == nodes[0].AppliedIndex() && x.AppliedIndex() > 30
			if caughtUp && string(x.fsm.data) != want.String() {
				t.Errorf("got %s\nwant %s", x.fsm.data, want.String())
			}
			for _, n := range nodes {
				n.trans.DisconnectAll()
			}
			for _, n := range nodes {
				must(t, n.Shutdown().Error())
			}
		})
		return caughtUp
	}
	for _, last := range []uint64{14, 20, 29} {
		t.Run(fmt.Sprint("log to ", last), func(t *testing.T) {
			s := raft.NewInmemStore()
			if got := run(t, last, s, s, raft.NewInmemSnapshotStore()); got != (last < 18) {
				t.Errorf("raft alone caught up: %t", got)
			}
			var stale raft.Log
			if s.GetLog(14, &stale) != nil || stale.Term != 3 {
				t.Error("raft has fixed this: it no longer keeps entries that were never committed")
			}
			s = raft.NewInmemStore()
			if !run(t, last, s, s, GuardSnapshots(raft.NewInmemSnapshotStore(), s)) {
				t.Error("did not catch up")
			}
			if s.GetLog(14, &stale) == nil {
				t.Errorf("entry 14 of term %d was kept", stale.Term)
			}
			d := lock(t, disktest.MemDir(t))
			l := openTestLog(t, d, true)
			snaps, err := d.OpenSnapshots(l, nil)
			must(t, err)
			if !run(t, last, l, l, snaps) {
				t.Error("did not catch up with a log on disk")
			}
			must(t, l.Close())
			l = openTestLog(t, d, false)
			_, err = d.OpenSnapshots(l, nil)
			must(t, err)
			if s := all(t, l); s.First != 18 && s.First != 19 || s.Last < 30 {
				t.Errorf("the log holds %d to %d", s.First, s.Last)
			}
			must(t, l.Close())
		})
	}
}

// TestSnapshotRestart: the log ends with a conflicting entry at the snapshot's index. raft looks
// only at its own memory there, and must be started again.
func TestSnapshotRestart(t *testing.T) {
	s := raft.NewInmemStore()
	must(t, s.StoreLogs(disktest.Entries(1, 18, 3, 5)))
	sink, err := GuardSnapshots(raft.NewInmemSnapshotStore(), s).Create(1, 18, 4, voters("x"), 1, delayed{})
	must(t, err)
	for range 2 {
		if err := sink.Close(); !errors.Is(err, ErrRestart) {
			t.Errorf("Close: %v", err)
		}
	}

	d := lock(t, disktest.MemDir(t))
	failed := make(chan error, 1)
	l, err := d.OpenLog(LogOptions{Create: true, Failed: func(err error) { failed <- err }})
	must(t, err)
	snaps, err := d.OpenSnapshots(l, nil)
	must(t, err)
	must(t, l.StoreLogs(disktest.Entries(1, 18, 3, 5)))
	err = l.Run(func() error { writeSnapshot(t, snaps, 18, 4, "content"); return nil })
	if got := <-failed; !errors.Is(err, ErrRestart) || !errors.Is(got, ErrRestart) {
		t.Errorf("got %v, Failed was told %v", err, got)
	}
	must(t, l.Close())
	l = openTestLog(t, d, false)
	_, err = d.OpenSnapshots(l, nil)
	must(t, err)
	if s := all(t, l); s.Last != 0 {
		t.Errorf("the log still holds %d to %d", s.First, s.Last)
	}
}

// TestCrashAfterSnapshot: a crash between a snapshot and the log that must fit it.
func TestCrashAfterSnapshot(t *testing.T) {
	for _, test := range []struct {
		name              string
		last, term, after uint64 // the log's last entry and its term; writes before the crash
		want              disktest.Log
	}{
		{"before anything", 20, 3, 0, disktest.Log{}},
		{"after all", 20, 3, 9, disktest.Log{First: 10, Last: 20}},
		{"log ends before", 7, 3, 0, disktest.Log{}},
		{"log ends before, before the no-op", 7, 3, 1, disktest.Log{}},
		{"log ends before, after all", 7, 3, 9, disktest.Log{First: 10, Last: 10}},
		{"no conflict", 20, 4, 0, disktest.Log{First: 1, Last: 20}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := lock(t, disktest.MemDir(t))
			f := &faulty{after: int(test.after), err: errors.New("crash")}
			l, err := d.OpenLog(LogOptions{Create: true, Faults: Faults{Before: f.fault}})
			must(t, err)
			snaps, err := d.OpenSnapshots(l, nil)
			must(t, err)
			must(t, l.StoreLogs(disktest.Entries(1, test.last, test.term, 10)))
			f.armed = true
			_ = l.Run(func() error { writeSnapshot(t, snaps, 10, 4, "content"); return nil })
			must(t, l.Close())
			l = openTestLog(t, d, false)
			_, err = d.OpenSnapshots(l, nil)
			must(t, err)
			got := all(t, l)
			if got.First != test.want.First || got.Last != test.want.Last {
				t.Errorf("the log holds %d to %d, want %d to %d", got.First, got.Last, test.want.First, test.want.Last)
			}
			must(t, l.Close())
		})
	}
}

const childKey = "DURABLE_TEST_CHILD"

// child returns this test binary, ready to run one test as a child process.
func child(t *testing.T, test, arg string) *exec.Cmd {
	exe, err := os.Executable()
	must(t, err)
	c := exec.CommandContext(t.Context(), exe, "-test.run=^"+test+"$", "-test.count=1")
	c.Env = append(os.Environ(), childKey+"="+arg)
	return c
}

// badStable is a stable store whose disk fails once bad is closed.
type badStable struct {
	raft.StableStore
	bad chan struct{}
}

func (s *badStable) SetUint64(k []byte, v uint64) error {
	select {
	case <-s.bad:
		return syscall.EIO
	default:
		return s.StableStore.SetUint64(k, v)
	}
}

// TestDiskErrorPanicsHost: raft panics when its stable store fails, on a goroutine of its own, and
// the host program ends. A Log ends only raft.
func TestDiskErrorPanicsHost(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	if os.Getenv(childKey) != "" {
		s := &badStable{StableStore: raft.NewInmemStore(), bad: make(chan struct{})}
		logs := raft.NewInmemStore()
		n := start(t, "x", logs, s, raft.NewInmemSnapshotStore())
		must(t, n.BootstrapCluster(voters("x")).Error())
		close(s.bad)
		select {} // the election ends the process
	}
	t.Run("raft", func(t *testing.T) {
		out, err := child(t, t.Name()[:strings.Index(t.Name(), "/")], "1").CombinedOutput()
		// any error: what the process has printed says why it ended
		if err == nil || !strings.Contains(string(out), "panic: failed to save current term") {
			t.Errorf("raft has fixed this: %v\n%s", err, out)
		}
	})
	for _, test := range []struct {
		name  string
		fault faulty
	}{
		{"bootstrap", faulty{after: 0}},
		{"vote", faulty{after: 1}},    // the vote for itself, with the term
		{"entry", faulty{after: 2}},   // the leader's no-op
		{"command", faulty{after: 3}}, // the command
	} {
		t.Run(test.name, func(t *testing.T) {
			d := lock(t, disktest.MemDir(t))
			synctest.Test(t, func(t *testing.T) {
				failed := make(chan error, 2)
				f := &test.fault
				l, err := d.OpenLog(LogOptions{Create: true, Failed: func(err error) { failed <- err }, Faults: Faults{Before: f.fault}})
				must(t, err)
				f.armed, f.err = true, syscall.EIO
				var n *node
				err = l.Run(func() error {
					snaps := raft.NewInmemSnapshotStore()
					_, trans := raft.NewInmemTransport("x")
					if err := raft.BootstrapCluster(config("x"), l, l, snaps, trans, voters("x")); err != nil {
						return err
					}
					n = start(t, "x", l, l, snaps)
					return nil
				})
				if err == nil {
					time.Sleep(time.Minute)
					n.Apply([]byte("command"), time.Second)
				}
				got := <-failed
				if !errors.Is(got, syscall.EIO) && !strings.Contains(got.Error(), syscall.EIO.Error()) {
					t.Errorf("Failed was told %v", got)
				}
				if !errors.Is(l.Err(), got) {
					t.Errorf("Err is %v, Failed was told %v", l.Err(), got)
				}
				if err := l.Run(func() error { _, err := l.LastIndex(); return err }); !errors.Is(err, got) {
					t.Errorf("a read after the error returned %v", err)
				}
				time.Sleep(time.Minute)
				if n != nil {
					must(t,
						n.Shutdown().Error(),
					) // hangs, and with it the bubble, if a goroutine of raft's was not counted
				}
				if len(failed) != 0 {
					t.Error("Failed was called again")
				}
				must(t, l.Close())
			})
		})
	}
}

// TestBusy: Busy shows a write that hangs, while it hangs.
func TestBusy(t *testing.T) {
	d := lock(t, disktest.MemDir(t))
	synctest.Test(t, func(t *testing.T) {
		l, err := d.OpenLog(LogOptions{Create: true, Faults: Faults{Before: func(string) error { time.Sleep(10 * time.Second); return nil }}})
		must(t, err)
		if b := l.Busy(); b != 0 {
			t.Errorf("an idle log is busy for %v", b)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = l.StoreLog(disktest.Entry(1, 1, 1))
		}()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if b := l.Busy(); b != 3*time.Second {
			t.Errorf("busy for %v, want 3s", b)
		}
		<-done
		if b := l.Busy(); b != 0 {
			t.Errorf("busy for %v after the write", b)
		}
		must(t, l.Close())
	})
}
