package flotilla

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// logbook keeps what is logged, with the time.
type logbook struct {
	mu    sync.Mutex
	lines []string
	begun time.Time
}

func newLogbook() *logbook { return &logbook{begun: time.Now()} }

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.TrimSpace(string(p)))
	return len(p), nil
}

// with returns the lines that have all of these words.
func (l *logbook) with(words ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.lines {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			found = append(found, line)
		}
	}
	return found
}

// The log hears of what waits after 5 s, then again after 5, 10, 20 s and so on, at most every five
// minutes; and when it is over.
func TestWaitingIntervals(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Duration
		begun := time.Now()
		log := slog.New(slog.NewTextHandler(testlog.WriterFunc(func(p []byte) {
			mu.Lock()
			defer mu.Unlock()
			if bytes.Contains(p, []byte("level=WARN")) {
				at = append(at, time.Since(begun).Round(time.Second))
			}
		}), nil))
		var why atomic.Value
		why.Store("because")
		var changes atomic.Int64
		var second notify.Signal
		w := newWaiting(log, &second, func() { changes.Add(1) }, condition{event.WaitBegun, "it", func() string { return why.Load().(string) }})
		ctx, stop := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { w.run(ctx) })
		done.Go(func() {
			for ctx.Err() == nil {
				second.Notify()
				time.Sleep(time.Second)
			}
		})
		defer func() { stop(); done.Wait() }()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if len(w.list()) != 0 {
			t.Error("it is told after less than 5 s")
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		mu.Lock()
		var gaps []time.Duration
		for i, a := range at {
			if i > 0 {
				a -= at[i-1]
			}
			gaps = append(gaps, a)
		}
		mu.Unlock()
		want := []time.Duration{5, 5, 10, 20, 40, 80, 150}
		for i := range want {
			want[i] *= time.Second
		}
		if len(gaps) < 10 || !slices.Equal(gaps[:6], want[:6]) {
			t.Errorf("after %v", gaps)
		}
		for _, g := range gaps[6:] {
			if g > waitLongest {
				t.Errorf("nothing for %v", g)
			}
		}
		if l := w.list(); len(l) != 1 || l[0].What != "it" || l[0].Why != "because" {
			t.Errorf("%+v", l)
		}
		before := changes.Load()
		why.Store("")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(w.list()) != 0 || changes.Load() == before {
			t.Error("its end is not told")
		}
	})
}

// Nodes that cannot reach one another say so after 5 s, each with the address and the cause of
// every peer, in the log and in Status; and again at growing intervals. When they can, that is told
// too.
func TestNodesThatCannotReachOneAnother(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New()
		secret := NewSecret()
		names := []string{"a", "b", "c"}
		for _, from := range names {
			network.Isolate(from)
		}
		var nodes []*Node
		var books []*logbook
		for _, name := range names {
			host, l := network.Host(name), newLogbook()
			n, err := Open(t.Context(), Config{
				Name: name, Secrets: []Secret{secret}, Peers: Static("a:7373", "b:7373", "c:7373", "unknown:7373", "refuses:7373"), Expect: 3,
				PeerListen: host.Listen, Logger: l.logger(),
				PeerDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					switch addr {
					case "unknown:7373":
						return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "unknown", IsNotFound: true}}
					case "refuses:7373":
						return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
					}
					return host.Dial(ctx, network, addr)
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			nodes, books = append(nodes, n), append(books, l)
		}
		time.Sleep(10 * time.Second)
		lines := books[0].with("level=WARN", "this node is in no cluster yet", "b:7373: no answer in time", "c:7373: no answer in time",
			"unknown:7373: its name is not known to DNS: unknown", "refuses:7373: connection refused", "of the 3 nodes")
		if len(lines) == 0 {
			t.Errorf("no such line in %q", books[0].lines)
		}
		s := nodes[0].Status()
		if len(s.Waiting) != 1 || s.Waiting[0].What != "this node is in no cluster yet" || len(s.Peers) != 4 || s.Peers[0].Addr != "b:7373" || !strings.Contains(s.Peers[0].Err, "no answer in time") {
			t.Errorf("%+v, %+v", s.Waiting, s.Peers)
		}
		time.Sleep(10 * time.Minute)
		if n := len(books[0].with("level=WARN", "this node is in no cluster yet")); n < 6 || n > 9 {
			t.Errorf("said %d times in ten minutes", n)
		}
		network.Heal()
		for _, n := range nodes {
			mustBeReady(t, n)
		}
		time.Sleep(10 * time.Second)
		if s := nodes[0].Status(); len(s.Waiting)+len(s.Peers) != 0 {
			t.Errorf("all is well: %+v, %+v", s.Waiting, s.Peers)
		}
		if len(books[0].with("level=INFO", "over: this node is in no cluster yet")) != 1 {
			t.Error("the end is not told")
		}
	})
}

// In a cluster too: a member that cannot be reached, the loss of the leader, and writes that wait
// for one.
func TestMembersThatCannotBeReached(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New()
		books := make(map[string]*logbook)
		nodes := trio(t, network, func(c *Config) {
			books[c.Name] = newLogbook()
			c.Logger = books[c.Name].logger()
		})
		time.Sleep(10 * time.Second)
		if s := nodes[0].Status(); len(s.Waiting)+len(s.Peers) != 0 {
			t.Fatalf("all is well: %+v, %+v", s.Waiting, s.Peers)
		}
		leader, others := leaderOf(t, nodes)
		network.Isolate(others[1].self.Name)
		time.Sleep(20 * time.Second)
		who := others[1].self.Name + " at " + others[1].self.Addr + ": no answer in time"
		if len(books[leader.self.Name].with("level=WARN", "other nodes cannot be reached", who)) == 0 {
			t.Errorf("the leader does not say that %s in %q", who, books[leader.self.Name].lines)
		}
		if s := leader.Status(); len(s.Peers) != 1 || s.Peers[0].ID != others[1].self.ID || s.Peers[0].Name != others[1].self.Name {
			t.Errorf("%+v", s.Peers)
		}
		network.Isolate(others[0].self.Name)
		write := make(chan error, 1)
		go func() { write <- leader.storage.Store(context.Background(), "x", []byte("y")) }()
		time.Sleep(20 * time.Second)
		for _, what := range []string{"the cluster has no leader", "majority of the 3 voters"} {
			if len(books[leader.self.Name].with("level=WARN", what, who)) == 0 {
				t.Errorf("no line with %q and %q in %q", what, who, books[leader.self.Name].lines)
			}
		}
		<-write
		go func() { write <- leader.storage.Store(context.Background(), "x", []byte("y")) }()
		time.Sleep(20 * time.Second)
		if len(books[leader.self.Name].with("level=WARN", "writes wait", "there is no leader", who)) == 0 {
			t.Errorf("a write that waits is not told in %q", books[leader.self.Name].lines)
		}
		network.Heal()
		time.Sleep(20 * time.Second)
		if s := leader.Status(); len(s.Waiting)+len(s.Peers) != 0 {
			t.Errorf("all is well again: %+v, %+v", s.Waiting, s.Peers)
		}
	})
}

// A node that was shut down is no reason for a warning, one that was killed is.
func TestPlannedStopIsNoWarning(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New()
		books := make(map[string]*logbook)
		nodes := trio(t, network, func(c *Config) {
			books[c.Name] = newLogbook()
			c.Logger = books[c.Name].logger()
		})
		leader, others := leaderOf(t, nodes)
		if err := others[0].Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if lines := books[leader.self.Name].with("other nodes cannot be reached"); len(lines) != 0 {
			t.Errorf("%q", lines)
		}
		if s := leader.Status(); len(s.Peers) != 1 || !s.Peers[0].Stopped || s.Peers[0].ID != others[0].self.ID {
			t.Errorf("%+v", s.Peers)
		}
	})
}

// With no Logger the log is the program's.
func TestLoggerByDefault(t *testing.T) {
	var cfg Config
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	if cfg.Logger != slog.Default() {
		t.Error("nothing is logged by a program that has no Logger")
	}
}
