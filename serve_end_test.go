package flotilla

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// realTrio returns the configurations of three nodes of one cluster, on the sockets and the disk of
// this machine.
func realTrio(t *testing.T) []Config {
	t.Helper()
	secret, dir := NewSecret(), t.TempDir()
	cfgs := make([]Config, 3)
	addrs := freeAddrs(t, 12)
	peers, others := addrs[:3], addrs[3:]
	for i := range cfgs {
		cfgs[i] = Config{
			Dir: filepath.Join(dir, fmt.Sprint(i)), Name: fmt.Sprint(i), Addr: peers[i], Peers: Static(peers...), Expect: 3,
			Secrets: []Secret{secret}, TLS: TLS{Configure: ownIssuer},
			HTTPSAddr: others[3*i], HTTPAddr: others[3*i+1], HealthAddr: others[3*i+2], Drain: Drain{Grace: 300 * time.Millisecond},
		}
	}
	return cfgs
}

// readyz asks a node's health port, on a new connection.
func readyz(cfg Config) (code int, text string, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + cfg.HealthAddr + "/readyz")
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(b)), err
}

// journal records what happened, in order.
type journal struct {
	mu    sync.Mutex
	steps []string
}

func (j *journal) add(step string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.steps = append(j.steps, step)
}

// A node shuts down in the order that Config.Drain describes.
func TestServeLeavesInOrder(t *testing.T) {
	SkipShort(t)
	t.Parallel() // it waits
	cfgs := realTrio(t)
	var j journal
	nodes := make([]*Node, len(cfgs))
	ctxs, stops := make([]context.Context, len(cfgs)), make([]context.CancelFunc, len(cfgs))
	ended := make([]chan error, len(cfgs))
	under, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/slow" {
			return
		}
		close(under)
		<-release
		j.add("answered")
	})
	for i, cfg := range cfgs {
		n, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		nodes[i], ended[i] = n, make(chan error, 1)
		ctxs[i], stops[i] = context.WithCancel(t.Context())
		go func() {
			err := serveOpened(ctxs[i], n, h, "app.test")
			if slices.ContainsFunc(nodes, func(o *Node) bool { return o != n && o.replica.Leading.Load() != nil }) {
				j.add("transferred") // or its session would not have been ended
			}
			j.add("closed " + n.self.Name)
			ended[i] <- err
		}()
	}
	var leader *Node
	defer func() {
		for i, n := range nodes {
			stops[i]()
			if err := <-ended[i]; err != nil && n == leader {
				t.Error(err)
			}
		}
	}()
	for _, n := range nodes {
		if err := n.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	at := slices.IndexFunc(nodes, func(n *Node) bool { return n.self.ID == nodes[0].replica.Leader() })
	leader = nodes[at]
	observer := nodes[(at+1)%3]

	held := make(chan struct{})
	go leader.Hold(t.Context(), Role{Name: "job"}, func(ctx context.Context, _ Tenure) error {
		close(held)
		<-ctx.Done()
		j.add("yielded")
		// While the node hands over its checks go on.
		if code, text, err := readyz(cfgs[at]); code != 503 || text != "draining" {
			t.Errorf("readyz while roles are handed over: %d %q %v", code, text, err)
		}
		if observer.replica.Leader() != leader.self.ID {
			t.Error("the leadership went before the role")
		}
		return nil
	})
	<-held
	next := make(chan struct{})
	go observer.Hold(t.Context(), Role{Name: "job"}, func(ctx context.Context, _ Tenure) error {
		j.add("next")
		close(next)
		return nil
	})

	roots := awaitCertificate(t, leader, ended[at])
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "app.test"}}}
	ask := func(path string) (last bool, err error) {
		resp, err := client.Get("https://" + cfgs[at].HTTPSAddr + path)
		if err != nil {
			return false, err
		}
		resp.Body.Close()
		return resp.Close, nil
	}
	slow := make(chan error, 1)
	go func() {
		_, err := ask("/slow")
		slow <- err
	}()
	<-under

	begun := time.Now()
	stops[at]()
	for s := range leader.Watch(t.Context()) {
		if s.Draining {
			break
		}
	}
	if code, text, err := readyz(cfgs[at]); code != 503 || text != "draining" {
		t.Errorf("readyz at once: %d %q %v", code, text, err)
	}
	for {
		// in the grace the node goes on as usual, and then says on every answer that it is the last
		last, err := ask("/")
		if err != nil || last {
			if since := time.Since(begun); since < cfgs[at].Drain.Grace {
				t.Errorf("a node in its grace after %v: last %v, %v", since, last, err)
			}
			break
		}
	}
	// The listener is closed while the request is under way.
	for {
		conn, err := net.Dial("tcp", cfgs[at].HTTPSAddr)
		if err != nil {
			break
		}
		conn.Close()
	}
	j.mu.Lock()
	if len(j.steps) > 0 {
		t.Errorf("before the last request is answered: %q", j.steps)
	}
	j.mu.Unlock()
	if code, text, err := readyz(cfgs[at]); code != 503 || text != "draining" {
		t.Errorf("readyz while requests are under way: %d %q %v", code, text, err)
	}
	close(release)
	if err := <-slow; err != nil {
		t.Errorf("a request under way: %v", err)
	}
	<-next
	err := <-ended[at]
	ended[at] <- err
	j.mu.Lock()
	defer j.mu.Unlock()
	want := []string{"answered", "yielded", "next", "transferred", "closed " + leader.self.Name}
	if !slices.Equal(j.steps, want) {
		t.Errorf("%q, want %q", j.steps, want)
	}
	if _, _, err := readyz(cfgs[at]); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the health port outlives the node: %v", err)
	}
}

// A request that takes longer than Patience is cut, and Serve says so.
func TestServeCutsWhatTakesTooLong(t *testing.T) {
	SkipShort(t)
	t.Parallel() // it waits
	under, cut := make(chan struct{}), make(chan struct{})
	log := new(testlog.Buffer)
	s := serveReal(t, Config{Drain: Drain{Patience: 1500 * time.Millisecond}, Logger: slog.New(slog.NewTextHandler(log, nil))}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(under)
		<-r.Context().Done()
		close(cut)
	}))
	asked := make(chan error, 1)
	go func() { asked <- s.post(t) }()
	<-under
	s.stop()
	err := <-s.ended
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "draining: 1 requests were cut") {
		t.Errorf("%v, want one request cut", err)
	}
	<-cut
	if err = <-asked; !isCut(err) {
		t.Errorf("a request that was cut was answered, or ended in another way: %v", err)
	}
	if text := log.String(); !strings.Contains(text, "draining: 1 requests under way") {
		t.Errorf("the log does not say what is waited for: %s", text)
	}
}

func TestDrainDefaults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		health string
		given  Drain
		want   Drain
	}{
		{"nobody looks", "", Drain{}, Drain{0, 20 * time.Second}},
		{"somebody on this machine looks", ":1", Drain{}, Drain{3 * time.Second, 20 * time.Second}},
		{"balancers look", "127.0.0.1:1", Drain{}, Drain{3 * time.Second, 20 * time.Second}},
		{"no grace", "127.0.0.1:1", Drain{-1, 1}, Drain{-1, 1}},
		{"set", "", Drain{time.Minute, time.Hour}, Drain{time.Minute, time.Hour}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := Config{HealthAddr: tc.health, Drain: tc.given}
			if err := cfg.complete(); err != nil || cfg.Drain != tc.want {
				t.Errorf("%+v, %v, want %+v", cfg.Drain, err, tc.want)
			}
		})
	}
}

// relay stands for a balancer: it carries connections to the nodes in turn. One with checks looks
// at /readyz and sends nothing to a node that is not ready. One without goes on to the next node if
// one refuses.
type relay struct {
	ln    net.Listener
	cfgs  []Config
	next  atomic.Int64
	down  []atomic.Bool // by the last check
	check bool
}

func newRelay(t *testing.T, cfgs []Config, check bool) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, cfgs: cfgs, down: make([]atomic.Bool, len(cfgs)), check: check}
	var checks sync.WaitGroup
	for i, cfg := range cfgs {
		if check {
			checks.Go(func() {
				for failed := 0; t.Context().Err() == nil; {
					failed++
					if code, _, _ := readyz(cfg); code == 200 {
						failed = 0
					}
					r.down[i].Store(failed >= 3)
					<-time.After(20 * time.Millisecond)
				}
			})
		}
	}
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go r.carry(client)
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		checks.Wait()
	})
	return r
}

func (r *relay) carry(client net.Conn) {
	defer client.Close()
	node := r.connect()
	if node == nil {
		return
	}
	defer node.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		io.Copy(client, node)
		client.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(node, client)
	node.(*net.TCPConn).CloseWrite()
	<-back
}

// connect returns a connection to the next node, or nil if there is none. A node that the checks
// call ready must accept it. When none is ready, as when this machine is so busy that leases
// expire, it tries all nodes, as good balancers do.
func (r *relay) connect() net.Conn {
	first := int(r.next.Add(1))
	for _, all := range []bool{!r.check, true} {
		for i := range r.cfgs {
			i = (first + i) % len(r.cfgs)
			if !all && r.down[i].Load() {
				continue
			}
			node, err := net.Dial("tcp", r.cfgs[i].HTTPSAddr)
			if err == nil {
				return node
			}
			if !all {
				return nil
			}
		}
	}
	return nil
}

// Three nodes are restarted one after the other, with clients of every kind behind balancers of
// both kinds. No request is lost.
func TestRollingRestartBehindBalancers(t *testing.T) {
	SkipShort(t)
	cfgs := realTrio(t)
	stops, ended := make([]context.CancelFunc, len(cfgs)), make([]chan error, len(cfgs))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	start := func(i int) {
		ctx, stop := context.WithCancel(t.Context())
		stops[i], ended[i] = stop, make(chan error, 1)
		go func() { ended[i] <- Serve(ctx, cfgs[i], h, "app.test") }()
	}
	ready := func(i int) {
		t.Helper()
		for {
			if code, _, _ := readyz(cfgs[i]); code == 200 {
				return
			}
			select {
			case err := <-ended[i]:
				t.Fatalf("node %d has ended: %v", i, err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	for i := range cfgs {
		start(i)
	}
	for i := range cfgs {
		ready(i)
	}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var relays []*relay
	asked := map[string]*atomic.Int64{}
	for _, check := range []bool{false, true} {
		r := newRelay(t, cfgs, check)
		relays = append(relays, r)
		for _, kind := range []string{"HTTP/1.1", "HTTP/2.0", "new connections"} {
			name := fmt.Sprintf("%s, checked %v", kind, check)
			count := new(atomic.Int64)
			asked[name] = count
			transport := &http.Transport{
				ForceAttemptHTTP2: kind == "HTTP/2.0",
				DisableKeepAlives: kind == "new connections",
				// the nodes' own authority is not what this is about
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "app.test"},
			}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
			for range 2 {
				clients.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						body := fmt.Sprint(n)
						resp, err := client.Post("https://"+r.ln.Addr().String(), "text/plain", strings.NewReader(body))
						if err != nil {
							t.Errorf("%s: %v", name, err)
							return
						}
						b, err := io.ReadAll(resp.Body)
						resp.Body.Close()
						if err != nil || string(b) != body || kind == "HTTP/2.0" && resp.Proto != kind {
							t.Errorf("%s: %q by %s, %v", name, b, resp.Proto, err)
							return
						}
						count.Add(1)
						<-time.After(5 * time.Millisecond)
					}
				})
			}
		}
	}
	for i := range cfgs {
		for at := range cfgs {
			ready(at)
			for _, r := range relays {
				for r.down[at].Load() {
					<-time.After(time.Millisecond)
				}
			}
		}
		stops[i]()
		if err := <-ended[i]; err != nil {
			t.Errorf("node %d: %v", i, err)
		}
		start(i)
	}
	ready(len(cfgs) - 1)
	stop()
	clients.Wait()
	for name, count := range asked {
		t.Logf("%s: %d requests", name, count.Load())
		if count.Load() < 10 {
			t.Errorf("%s: only %d requests", name, count.Load())
		}
	}
	for i := range cfgs {
		stops[i]()
	}
	for i := range cfgs {
		<-ended[i] // the last ones find no majority to hand over to
	}
}

// serveOpened is Serve on a node that is open.
func serveOpened(ctx context.Context, n *Node, h http.Handler, domains ...string) error {
	p, err := n.openPorts(ctx, domains)
	if err != nil {
		return err
	}
	return n.serveToTheEnd(ctx, h, p)
}
