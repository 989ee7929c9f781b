package flotilla

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// former is a cluster of three that serves clients. Node a is recovered while the others run.
type former struct {
	t    *testing.T
	net  *simnet.Network
	cfgs map[string]Config
}

func newFormer(t *testing.T) *former {
	f := &former{t: t, net: simnet.New(), cfgs: make(map[string]Config)}
	secret := NewSecret()
	for _, name := range []string{"a", "b", "c"} {
		host := f.net.Host(name)
		f.cfgs[name] = Config{
			Dir: filepath.Join(t.TempDir(), name), Name: name, Secrets: []Secret{secret}, TLS: TLS{Private: true}, certs: offline,
			Peers: Static("a:7373", "b:7373", "c:7373"), Expect: 3, HealthAddr: "0.0.0.0:8081", Drain: Drain{Grace: -1},
			PeerListen: host.Listen, PeerDial: host.Dial, Listen: host.Listen,
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		}
	}
	return f
}

// open opens a node that is closed when the test ends.
func (f *former) open(name string) *Node {
	f.t.Helper()
	n, err := Open(f.t.Context(), f.cfgs[name])
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { n.Close() })
	return n
}

func (f *former) dial(addr string) net.Conn {
	f.t.Helper()
	conn, err := f.net.Host("client").Dial(f.t.Context(), "tcp", addr)
	if err != nil {
		f.t.Fatal(err)
	}
	return conn
}

// status asks for the status of a node at its health port.
func (f *former) status(name string) (s Status) {
	conn, err := f.net.Host("client").Dial(f.t.Context(), "tcp", name+":8081")
	if err != nil {
		return s // the port is closed at this moment
	}
	defer conn.Close()
	if _, body, err := askConn(conn, "/status"); err == nil {
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			f.t.Fatal(err)
		}
	}
	return s
}

// await asks for the status of a node until it is as wanted.
func (f *former) await(name string, within time.Duration, ok func(Status) bool) Status {
	f.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		if s := f.status(name); ok(s) {
			return s
		} else if time.Now().After(end) {
			f.t.Fatalf("after %v the status of %s is %+v", within, name, s)
		}
	}
}

// recover makes node a, which must be closed, the only one of another incarnation of the cluster.
func (f *former) recover() {
	f.t.Helper()
	if _, err := Recover(f.cfgs["a"].Dir, true, f.cfgs["a"].Secrets...); err != nil {
		f.t.Fatal(err)
	}
}

// slowly answers each request when it is told to, and tells of each.
func slowly() (h http.Handler, under chan struct{}, release chan struct{}) {
	under, release = make(chan struct{}), make(chan struct{})
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		under <- struct{}{}
		<-release
		io.WriteString(w, "answered")
	}), under, release
}

// ask begins a request over HTTPS. The channel gets what came of it.
func (f *former) ask(name string) <-chan string {
	f.t.Helper()
	conn, came := f.dial(name+":443"), make(chan string, 1)
	go func() {
		defer conn.Close()
		_, body, err := askConn(tls.Client(conn, &tls.Config{ServerName: "x.test", InsecureSkipVerify: true}), "/")
		if err != nil {
			body = err.Error()
		}
		came <- body
	}()
	return came
}

// underWay waits until a request is with the handler.
func (f *former) underWay(under <-chan struct{}, came <-chan string) {
	f.t.Helper()
	select {
	case <-under:
	case body := <-came:
		f.t.Fatalf("the request did not get through: %s", body)
	}
}

// The former majority meets a recovered node. Its programs, which call Serve, go on without help: a
// request under way is answered, what they held is free, and they join as new nodes.
func TestServeStartsAnew(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFormer(t)
		a := f.open("a")
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		h, under, release := slowly()
		for _, name := range []string{"b", "c"} {
			go func() { ended <- Serve(ctx, f.cfgs[name], h, "x.test") }()
		}
		mustBeReady(t, a)
		was := map[string]Status{}
		for _, name := range []string{"b", "c"} {
			was[name] = f.await(name, time.Minute, func(s Status) bool { return s.Ready && len(s.Certificates) > 0 && s.Certificates[0].Serial != "" })
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		f.recover()
		came := f.ask("b")
		f.underWay(under, came)
		began := time.Now()
		a = f.open("a")
		mustBeReady(t, a)
		gaveUp := f.await("b", 15*time.Second, func(s Status) bool { return strings.Contains(s.Err, "was restored or recovered since") })
		t.Logf("it has met the recovered cluster %v after that was opened", time.Since(began))
		if gaveUp.ID != was["b"].ID {
			t.Errorf("it is %s before its request is answered, and was %s", gaveUp.ID, was["b"].ID)
		}
		close(release)
		if body := <-came; body != "answered" {
			t.Errorf("a request under way: %s", body)
		}
		answered := time.Now()
		for _, name := range []string{"b", "c"} {
			now := f.await(name, 15*time.Second, func(s Status) bool { return s.Ready && s.ID != was[name].ID })
			if _, err := os.Stat(filepath.Join(f.cfgs[name].Dir, now.SetAside, "raft.db")); now.SetAside == "" || err != nil {
				t.Errorf("%s has set aside %q: %v", name, now.SetAside, err)
			}
		}
		t.Logf("both are ready again %v after the request was answered", time.Since(answered))
		came = f.ask("b")
		f.underWay(under, came)
		if body := <-came; body != "answered" {
			t.Errorf("a request to the new node: %s", body)
		}
		if err := a.Storage().Store(t.Context(), "k", []byte("1")); err != nil {
			t.Error(err)
		}
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("Serve: %v", err)
			}
		}
	})
}

// kept is a socket that somebody else keeps open, such as a service manager.
type kept struct {
	net.Listener
	arrived chan net.Conn
	gone    chan struct{}
}

func keep(ln net.Listener) *kept {
	k := &kept{ln, make(chan net.Conn), make(chan struct{})}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			select {
			case k.arrived <- conn:
			case <-k.gone:
				conn.Close()
			}
		}
	}()
	return k
}

// end closes the socket. Clients that wait are told.
func (k *kept) end() {
	close(k.gone)
	k.Listener.Close()
}

// open returns another listener on the socket.
func (k *kept) open() net.Listener { return &lent{k, make(chan struct{})} }

// lent is a listener on a kept socket. It is closed once.
type lent struct {
	*kept
	closed chan struct{}
}

func (l *lent) Accept() (net.Conn, error) {
	select {
	case conn := <-l.arrived:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *lent) Close() error {
	select {
	case <-l.closed:
		return net.ErrClosed
	default:
		close(l.closed)
		return nil
	}
}

// The sockets of Config.Listen outlive a node that is opened anew. A client that comes in between
// waits.
func TestServeStartsAnewOnKeptSockets(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFormer(t)
		a := f.open("a")
		f.open("c")
		cfg, sockets, asked := f.cfgs["b"], make(map[string]*kept), make(map[string]int)
		for _, addr := range []string{":443", ":80", "0.0.0.0:8081"} {
			ln, err := f.net.Host("b").Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			sockets[addr] = keep(ln)
		}
		cfg.Listen = func(_, addr string) (net.Listener, error) { // of the goroutine of Serve alone
			asked[addr]++
			return sockets[addr].open(), nil
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		h, under, release := slowly()
		close(release)
		go func() {
			err := Serve(ctx, cfg, h, "x.test")
			for _, socket := range sockets {
				socket.end()
			}
			ended <- err
		}()
		mustBeReady(t, a)
		was := f.await("b", time.Minute, func(s Status) bool { return s.Ready })
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		f.recover()
		mustBeReady(t, f.open("a"))
		f.await("b", time.Minute, func(s Status) bool { return s.Ready && s.ID != was.ID })
		came := f.ask("b")
		f.underWay(under, came)
		if body := <-came; body != "answered" {
			t.Errorf("a request to the new node: %s", body)
		}
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if diff := cmp.Diff(map[string]int{":443": 2, ":80": 2, "0.0.0.0:8081": 2}, asked); diff != "" {
			t.Errorf("Listen was called for (-want +got):\n%s", diff)
		}
	})
}

// An http.Server serves only once. So Serve with one returns the reason, and the next process goes
// on as a new node.
func TestServeWithServerEndsToStartAnew(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFormer(t)
		a := f.open("a")
		f.open("c")
		cfg, ended := f.cfgs["b"], make(chan error, 1)
		cfg.Server = &http.Server{Handler: http.NotFoundHandler()}
		go func() { ended <- Serve(t.Context(), cfg, nil, "x.test") }()
		mustBeReady(t, a)
		was := f.await("b", time.Minute, func(s Status) bool { return s.Ready })
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		f.recover()
		mustBeReady(t, f.open("a"))
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), "was restored or recovered since") {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("Serve goes on")
		}
		b := f.open("b")
		mustBeReady(t, b)
		if s := b.Status(); s.ID == was.ID || s.SetAside == "" {
			t.Errorf("it is %s, and was %s; set aside is %q", s.ID, was.ID, s.SetAside)
		}
	})
}

// A program that opens its node itself learns from Node.Serve that it has to open it again. It is
// the same with the next process of a program that ends.
func TestNodeServeEndsToStartAnew(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFormer(t)
		a, b, c := f.open("a"), f.open("b"), f.open("c")
		ended := make(chan error, 1)
		h, under, release := slowly()
		go func() { ended <- b.Serve(t.Context(), h, "x.test") }()
		for _, n := range []*Node{a, b, c} {
			mustBeReady(t, n)
		}
		awaitCertificate(t, b, ended)
		was, held := b.Status().ID, make(chan error, 1)
		go func() {
			held <- b.Hold(t.Context(), Role{Name: "r"}, func(ctx context.Context, _ Tenure) error {
				<-ctx.Done()
				return nil
			})
		}()
		synctest.Wait()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		f.recover()
		came := f.ask("b")
		f.underWay(under, came)
		a = f.open("a")
		mustBeReady(t, a)
		f.await("b", 15*time.Second, func(s Status) bool { return s.Err != "" })
		err := <-held
		if err == nil || !strings.Contains(err.Error(), "was restored or recovered since") {
			t.Errorf("Hold: %v", err)
		}
		close(release)
		if body := <-came; body != "answered" {
			t.Errorf("a request under way: %s", body)
		}
		select {
		case err = <-ended:
		case <-time.After(time.Minute):
			t.Fatal("Serve goes on")
		}
		for _, want := range []string{"was restored or recovered since", "start it again: its state is then set aside in"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Serve says %v, want %q in it", err, want)
			}
		}
		if err := b.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		b = f.open("b")
		mustBeReady(t, b)
		if s := b.Status(); s.ID == was || s.SetAside == "" {
			t.Errorf("it is %s, and was %s; set aside is %q", s.ID, was, s.SetAside)
		}
	})
}

// A node that cannot go on, and that starting it again would not help, serves what it has in
// memory.
func TestServeGoesOnWithoutTheCluster(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFormer(t)
		cfg := f.cfgs["a"]
		cfg.Peers, cfg.Expect = nil, 0
		f.cfgs["a"] = cfg
		n := f.open("a")
		ended := make(chan error, 1)
		h, under, release := slowly()
		ctx, stop := context.WithCancel(t.Context())
		go func() { ended <- n.Serve(ctx, h, "x.test") }()
		awaitCertificate(t, n, ended)
		n.replica.Fail(ErrRemoved)
		time.Sleep(time.Minute)
		came := f.ask("a")
		f.underWay(under, came)
		close(release)
		if body := <-came; body != "answered" {
			t.Errorf("a request: %s", body)
		}
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}
