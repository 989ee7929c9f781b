package flotilla

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// disks are the disks of some nodes, which fail when they are told to.
type disks struct {
	mu    sync.Mutex
	fault map[string]error // by directory
	hang  map[string]chan struct{}
}

func newDisks() *disks { return &disks{fault: map[string]error{}, hang: map[string]chan struct{}{}} }

func (d *disks) attach(c *Config) {
	dir := c.Dir
	c.hooks.Disk.Before = func(string) error {
		d.mu.Lock()
		hang := d.hang[dir]
		d.mu.Unlock()
		if hang != nil {
			<-hang
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.fault[dir]
	}
}

// fail has every write of these nodes fail from now on; nil mends the disks.
func (d *disks) fail(err error, nodes ...*Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range nodes {
		d.fault[n.cfg.Dir] = err
	}
}

// stop has the disk of a node hang until the function that it returns is called.
func (d *disks) stop(n *Node) (goOn func()) {
	hang := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hang[n.cfg.Dir] = hang
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.hang, n.cfg.Dir)
		close(hang)
	}
}

// storeWithin stores a value, or fails the test with what the node says.
func storeWithin(t *testing.T, limit time.Duration, n *Node, key, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	if err := n.Storage().Store(ctx, key, []byte(value)); err != nil {
		t.Fatalf("%s: after %v: %v", n.self.Name, time.Since(start), err)
	}
}

func wantValue(t *testing.T, n *Node, key, value string) {
	t.Helper()
	if got, err := n.Storage().Load(t.Context(), key); err != nil || string(got) != value {
		t.Errorf("%s reads %q, %v; want %q", n.self.Name, got, err, value)
	}
}

// eventually waits for something, in virtual time.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// wantOut checks that a node takes no part and says why.
func wantOut(t *testing.T, n *Node, parts ...string) {
	t.Helper()
	s := n.Status()
	if s.Ready || s.Lease.Held || s.Leader == s.ID || !s.Retries || n.replica.Leading.Load() != nil {
		t.Errorf("%s: ready %v, lease %v, leads %v, retries %v", n.self.Name, s.Ready, s.Lease.Held, s.Leader == s.ID, s.Retries)
	}
	for _, part := range parts {
		if !strings.Contains(s.Err, part) {
			t.Errorf("%s says %q, want %q in it", n.self.Name, s.Err, part)
		}
	}
}

// A disk that is full, or fails, for a while keeps its node out for that while and a moment, not
// until somebody starts the process again.
func TestDiskErrorPasses(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	faults := []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS}
	for _, fault := range Some(t, faults, 3) {
		for _, who := range Some(t, []string{"leader", "follower", "two", "all"}, 2) {
			for _, long := range []time.Duration{50 * time.Millisecond, time.Second, 20 * time.Second} {
				if fault != syscall.ENOSPC && long > time.Second {
					continue
				}
				t.Run(fmt.Sprintf("%v/%s/%v", fault, who, long), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						ds := newDisks()
						nodes := trio(t, simnet.New(), ds.attach)
						storeWithin(t, time.Second, nodes[0], "k", "1")
						leader, others := leaderOf(t, nodes)
						sick := map[string][]*Node{"leader": {leader}, "follower": others[:1], "two": others, "all": nodes}[who]
						ds.fail(fault, sick...)
						for _, n := range nodes {
							ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
							n.Storage().Store(ctx, "x", nil) // whatever comes of it: it makes the disks write
							cancel()
						}
						start := time.Now()
						if who == "leader" || who == "follower" {
							healthy := others[1]
							storeWithin(t, time.Second, healthy, "k", "2")
							if took := time.Since(start); took > 700*time.Millisecond {
								t.Errorf("the others write again after %v", took)
							}
							eventually(t, 2*time.Second, "the sick node is out", func() bool { return sick[0].Status().Err != "" })
						}
						time.Sleep(time.Until(start.Add(long)))
						for _, n := range sick {
							if n.life.Setback.Load() != nil {
								wantOut(t, n, fault.Error())
							}
						}
						if sick[0].life.Setback.Load() == nil {
							t.Error("no disk has failed: this shows nothing")
						}
						ds.fail(nil, sick...)
						took := eventually(t, 5*time.Second, "all are ready", func() bool {
							for _, n := range nodes {
								if !n.Status().Ready {
									return false
								}
							}
							return true
						})
						t.Logf("all ready %v after the disks worked again", took)
						storeWithin(t, time.Second, nodes[1], "k", "3")
						for _, n := range nodes {
							wantValue(t, n, "k", "3")
							if s := n.Status(); s.Err != "" || s.Retries {
								t.Errorf("%s still says %q", n.self.Name, s.Err)
							}
						}
					})
				})
			}
		}
	}
}

// Whatever was acknowledged while disks failed and came back is there at the end, on every node and
// on every disk.
func TestDiskErrorsLoseNothing(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for seed := range uint64(Cases(t, 6, 2)) {
		synctest.Test(t, func(t *testing.T) {
			ds := newDisks()
			net := simnet.New()
			nodes := trio(t, net, ds.attach)
			acknowledged := map[string]bool{}
			for step := range 30 {
				n := nodes[(uint64(step)*7+seed)%3]
				switch (uint64(step) + seed) % 5 {
				case 0, 2:
					ds.fail(syscall.EIO, n)
				case 3:
					ds.fail(nil, nodes...)
				}
				for _, w := range nodes {
					key := fmt.Sprintf("%d/%s", step, w.self.Name)
					ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
					if w.Storage().Store(ctx, key, []byte(key)) == nil {
						acknowledged[key] = true
					}
					cancel()
				}
			}
			ds.fail(nil, nodes...)
			for _, n := range nodes {
				mustBeReady(t, n)
			}
			if len(acknowledged) < 20 {
				t.Errorf("only %d writes were acknowledged: this shows little", len(acknowledged))
			}
			for key := range acknowledged {
				for _, n := range nodes {
					wantValue(t, n, key, key)
				}
			}
			for _, n := range nodes {
				n.Close()
			}
			for i, n := range nodes {
				nodes[i] = reviewReopen(t, n)
			}
			for _, n := range nodes {
				mustBeReady(t, n)
				for key := range acknowledged {
					wantValue(t, n, key, key)
				}
			}
		})
	}
}

// A disk that hangs for a while is said to, and its node is back when it hangs no more.
func TestHangingDiskIsSaid(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ds := newDisks()
		nodes := trio(t, simnet.New(), ds.attach)
		leader, others := leaderOf(t, nodes)
		goOn := ds.stop(leader)
		go leader.Storage().Store(t.Context(), "x", nil)
		eventually(t, 3*time.Second, "it says that its disk hangs", func() bool { return strings.Contains(leader.Status().Err, "the disk hangs") })
		storeWithin(t, 3*time.Second, others[0], "k", "1")
		time.Sleep(time.Minute)
		if s := leader.Status(); s.Ready || s.Lease.Held || s.Leader == s.ID || !s.Retries {
			t.Errorf("ready %v, lease %v, leads %v, retries %v", s.Ready, s.Lease.Held, s.Leader == s.ID, s.Retries)
		}
		goOn()
		// raft's leader tries a voter that did not answer again after 10 ms, 20 ms, … 10.24 s.
		eventually(t, 12*time.Second, "it is ready", func() bool { s := leader.Status(); return s.Ready && s.Err == "" })
		wantValue(t, leader, "k", "1")
	})
}

// A node whose log was deleted or replaced, or whose directory is gone, notices within seconds,
// takes no part and says what to do; it goes on serving. It is back when the file is, or when it
// has written it anew. Nothing that was acknowledged is lost, as happened when two of three voters
// went on writing to files without a name.
func TestDeletedUnderTheNode(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	at := func(n *Node, name string) string { return filepath.Join(n.cfg.Dir, name) }
	remove := func(name string) func(*testing.T, *Node) {
		return func(t *testing.T, n *Node) { mustDo(t, os.RemoveAll(at(n, name))) }
	}
	move := func(n *Node, name string) (from, to string) { return at(n, name), n.cfg.Dir + "-away" }
	for _, test := range Some(t, []struct {
		name string
		do   func(*testing.T, *Node)
		// what is there, or elsewhere, is not overwritten meanwhile. Nil: the node helps itself
		undo func(*testing.T, *Node)
		says string
	}{
		{"raft.db", remove("raft.db"), nil, "raft.db was deleted"},
		{"segment", remove("raft-0000000000000001.log"), nil, "raft-0000000000000001.log was deleted"},
		{"identity", remove("node"), nil, "node was deleted"},
		{"snapshots", remove("snapshots"), nil, "was deleted"},
		{"log and snapshots", func(t *testing.T, n *Node) { remove("raft.db")(t, n); remove("snapshots")(t, n) }, nil, "was deleted"},
		{"everything in it", func(t *testing.T, n *Node) {
			for _, name := range []string{"raft.db", "node", "snapshots", "lock"} {
				remove(name)(t, n)
			}
		}, nil, "was deleted"},
		{"directory", remove(""), nil, "was deleted"},
		{"raft.db moved", func(t *testing.T, n *Node) { from, to := move(n, "raft.db"); mustDo(t, os.Rename(from, to)) },
			func(t *testing.T, n *Node) { to, from := move(n, "raft.db"); mustDo(t, os.Rename(from, to)) }, "put it back"},
		{"directory moved", func(t *testing.T, n *Node) { from, to := move(n, ""); mustDo(t, os.Rename(from, to)) },
			func(t *testing.T, n *Node) { to, from := move(n, ""); mustDo(t, os.Rename(from, to)) }, "put it back"},
		{"raft.db replaced by a copy", func(t *testing.T, n *Node) {
			b, err := os.ReadFile(at(n, "raft.db"))
			mustDo(t, err)
			mustDo(t, os.WriteFile(at(n, "copy"), b, 0o600))
			mustDo(t, os.Rename(at(n, "copy"), at(n, "raft.db")))
		}, remove("raft.db"), "was replaced"},
		{"identity replaced by a copy", func(t *testing.T, n *Node) {
			b, err := os.ReadFile(at(n, "node"))
			mustDo(t, err)
			mustDo(t, os.WriteFile(at(n, "copy"), b, 0o600))
			mustDo(t, os.Rename(at(n, "copy"), at(n, "node")))
		}, remove("node"), "was replaced"},
	}, 3) {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logs := new(logText)
				net := simnet.New()
				nodes := trio(t, net, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(logs, nil)) })
				storeWithin(t, time.Second, nodes[0], "j", "1")
				for _, n := range nodes {
					mustDo(t, n.replica.Snapshots.Take(t.Context()))
				}
				storeWithin(t, time.Second, nodes[0], "k", "1")
				leader, others := leaderOf(t, nodes)
				gone := []*Node{leader, others[0]} // a majority
				for _, n := range gone {
					test.do(t, n)
				}
				took := eventually(t, 3*time.Second, "both have noticed", func() bool { return gone[0].Status().Err != "" && gone[1].Status().Err != "" })
				t.Logf("noticed after %v: %s", took, gone[0].Status().Err)
				time.Sleep(5 * time.Second)
				for _, n := range gone {
					wantOut(t, n, test.says)
					wantValue(t, n, "k", "1")
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					if err := n.Storage().Store(ctx, "lost", nil); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), test.says) {
						t.Errorf("a write that is on no disk of a majority says %v", err)
					}
					cancel()
				}
				if s := others[1].Status(); s.Leader != "" && s.Leader != others[1].self.ID {
					t.Errorf("the third one follows %s", s.LeaderName)
				}
				if !logs.has("level=ERROR", "takes no part", test.says) {
					t.Errorf("nothing of this is in the log:\n%s", logs.all())
				}
				if test.undo != nil {
					if test.name != "raft.db moved" { // that would have been written anew
						time.Sleep(40 * time.Second)
					}
					for _, n := range gone {
						wantOut(t, n)
						test.undo(t, n)
					}
				}
				back := eventually(t, time.Minute, "all are ready", func() bool {
					for _, n := range nodes {
						if !n.Status().Ready {
							return false
						}
					}
					return true
				})
				t.Logf("back after %v", back)
				wantAllToRestart(t, nodes)
			})
		})
	}
}

// wantAllToRestart expects that the nodes can write, and that each keeps that over a restart.
func wantAllToRestart(t *testing.T, nodes []*Node) {
	t.Helper()
	storeWithin(t, time.Second, nodes[0], "k", "2")
	for i, n := range nodes {
		wantValue(t, n, "k", "2")
		mustDo(t, n.Close())
		nodes[i] = reviewReopen(t, n)
	}
	for _, n := range nodes {
		mustBeReady(t, n)
		wantValue(t, n, "k", "2")
	}
}

// The lock file is deleted: it is locked again before another process can take the directory. One
// that was faster has it, and this node stops.
func TestDeletedLock(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, taken := range []bool{false, true} {
		t.Run(strconv.FormatBool(taken), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes := trio(t, simnet.New(), nil)
				n := nodes[0]
				mustDo(t, os.Remove(filepath.Join(n.cfg.Dir, "lock")))
				if taken {
					other, err := durable.Lock(n.cfg.Dir)
					mustDo(t, err)
					defer other.Close()
					eventually(t, 3*time.Second, "it stops", func() bool { return strings.Contains(n.Status().Err, "another process has taken") })
					return
				}
				time.Sleep(3 * time.Second)
				var inUse *durable.InUseError
				if _, err := durable.Lock(n.cfg.Dir); !errors.As(err, &inUse) {
					t.Errorf("a second process gets %v", err)
				}
				if s := n.Status(); s.Err != "" || !s.Ready {
					t.Errorf("ready %v, %s", s.Ready, s.Err)
				}
			})
		})
	}
}

// A node whose log file is deleted writes the log again when it ends, because no other node has it.
// If its identity is deleted too, the operator wants a new node, and no log is written.
func TestDeletedLogIsLeftBehind(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		storeWithin(t, time.Second, nodes[0], "k", "1")
		for _, n := range nodes[:2] {
			mustDo(t, os.Remove(filepath.Join(n.cfg.Dir, "raft.db")))
		}
		time.Sleep(3 * time.Second)
		mustDo(t, os.Remove(filepath.Join(nodes[1].cfg.Dir, "node")))
		for _, n := range nodes[:2] {
			mustDo(t, n.Close())
		}
		if _, err := os.Stat(filepath.Join(nodes[0].cfg.Dir, "raft.db")); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(nodes[1].cfg.Dir, "raft.db")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a directory that was emptied has a log again: %v", err)
		}
		again := reviewReopen(t, nodes[0])
		mustBeReady(t, again)
		wantValue(t, again, "k", "1")
	})
}

// The disk is full while a cluster forms, and while a node joins. Both go on when there is room.
func TestFormOnFullDisk(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, op := range []string{"open", "store entries", "store the vote"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var full atomic.Bool
				full.Store(true)
				time.AfterFunc(30*time.Second, func() { full.Store(false) })
				start := time.Now()
				nodes := trio(t, simnet.New(), func(c *Config) {
					c.hooks.Disk.Before = func(now string) error {
						if full.Load() && now == op {
							return syscall.ENOSPC
						}
						return nil
					}
				})
				if took := time.Since(start); took < 30*time.Second || took > 36*time.Second {
					t.Errorf("ready after %v", took)
				}
				storeWithin(t, time.Second, nodes[0], "k", "1")
			})
		})
	}
}

// The identity is deleted while the node waits for others to form a cluster with: what it has
// promised must not be forgotten.
func TestDeletedIdentityWhileForming(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		host := simnet.New().Host("a")
		n, err := Open(t.Context(), Config{Dir: t.TempDir(), Name: "a", Secrets: []Secret{NewSecret()}, Expect: 3, PeerListen: host.Listen, PeerDial: host.Dial, Peers: Static("b:7373"),
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		mustDo(t, err)
		defer n.Close()
		time.Sleep(3 * time.Second)
		path := filepath.Join(n.cfg.Dir, "node")
		before, err := os.ReadFile(path)
		mustDo(t, err)
		mustDo(t, os.Remove(path))
		time.Sleep(3 * time.Second)
		after, err := os.ReadFile(path)
		if err != nil || string(after) != string(before) {
			t.Errorf("the identity is %q, %v, and was %q", after, err, before)
		}
	})
}

// A voter whose raft does not run says nothing of its term: a leader that has been replaced would
// take a 0 for a confirmation.
func TestTermOfOneThatIsOut(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ds := newDisks()
		nodes := trio(t, simnet.New(), ds.attach)
		leader, others := leaderOf(t, nodes)
		if _, err := leader.replica.TermOf(t.Context(), others[0].self.ID); err != nil {
			t.Fatal(err)
		}
		ds.fail(syscall.EIO, others[0])
		others[0].replica.Interrupt(syscall.EIO)
		time.Sleep(time.Second)
		for _, asker := range []*Node{leader, others[0]} {
			if term, err := asker.replica.TermOf(t.Context(), others[0].self.ID); err == nil || !strings.Contains(err.Error(), "raft does not run") {
				t.Errorf("it says %d, %v", term, err)
			}
		}
		if err := others[0].replica.Admit(leader.self.ID); err == nil || !strings.Contains(err.Error(), "disk") {
			t.Errorf("raft of a peer is refused with %v", err)
		}
	})
}

// An error that no later attempt would change ends the node's part for good.
func TestDamageDoesNotPass(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ds := newDisks()
		nodes := trio(t, simnet.New(), ds.attach)
		n := nodes[0]
		ds.fail(syscall.EIO, n)
		n.replica.Interrupt(syscall.EIO)
		time.Sleep(3 * time.Second)
		path := filepath.Join(n.cfg.Dir, "raft.db")
		b, err := os.ReadFile(path)
		mustDo(t, err)
		for i := 4096 * 2; i < len(b); i++ {
			b[i] ^= 0x55
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		mustDo(t, err)
		_, err = f.Write(b)
		mustDo(t, errors.Join(err, f.Close()))
		ds.fail(nil, n)
		eventually(t, 3*time.Second, "it gives up", func() bool { s := n.Status(); return s.Err != "" && !s.Retries })
		if s := n.Status(); !strings.Contains(s.Err, "is damaged") || !strings.Contains(s.Err, "remove the node's data directory") {
			t.Error(s.Err)
		}
	})
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logText is what was logged.
type logText struct {
	mu    sync.Mutex
	lines []string
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logText) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

// has reports whether one line has all parts.
func (l *logText) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		found := true
		for _, part := range parts {
			found = found && strings.Contains(line, part)
		}
		if found {
			return true
		}
	}
	return false
}
