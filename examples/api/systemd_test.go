package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
)

// TestMain is the program itself in the processes that TestSystemdProtocol starts, and listenAgain
// in that of TestActivatedAgain.
func TestMain(m *testing.M) {
	if addr := os.Getenv("API_TEST_LISTEN"); addr != "" {
		if err := listenAgain(addr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv("API_TEST_PROCESS") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A node without a majority is alive. One whose lease loop hangs is not, whatever else runs.
func TestProve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now flotilla.Status
		var said []string
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go prove(ctx, 20*time.Second, func() flotilla.Status { return now }, func(state string) { said = append(said, state) })
		for _, step := range []struct {
			name string
			now  flotilla.Status
			want string
		}{
			{"in no cluster yet", flotilla.Status{Lease: flotilla.LeaseStatus{IdleMillis: 90}}, "EXTEND_TIMEOUT_USEC=20000000"},
			{"ready", flotilla.Status{Ready: true, Leader: "x"}, "WATCHDOG=1"},
			{"no majority", flotilla.Status{Lease: flotilla.LeaseStatus{IdleMillis: 90}}, "WATCHDOG=1"},
			{"failed for good", flotilla.Status{Err: "the disk"}, "WATCHDOG=1"},
			{"the loop hangs, and the node leads", flotilla.Status{Ready: true, Leader: "x", ID: "x", Lease: flotilla.LeaseStatus{IdleMillis: 10_000}}, ""},
			{"the loop runs again", flotilla.Status{}, "WATCHDOG=1"},
		} {
			synctest.Wait()
			now, said = step.now, nil
			time.Sleep(time.Minute)
			synctest.Wait()
			if step.want == "" {
				if len(said) > 0 {
					t.Errorf("%s: %q", step.name, said)
				}
				continue
			}
			if n := len(said); n < 11 || n > 13 || len(slices.Compact(said)) != 1 || said[0] != step.want {
				t.Errorf("%s: %d times in a minute, %q, want %s every five seconds", step.name, n, said[0], step.want)
			}
		}
	})
}

func TestDescribe(t *testing.T) {
	members := func(present ...bool) (all []flotilla.Member) {
		for i, there := range present {
			all = append(all, flotilla.Member{ID: fmt.Sprint(i), Voter: true, Present: there})
		}
		return all
	}
	follower := append(members(true, true, true), flotilla.Member{ID: "3", Present: true})
	for want, s := range map[string]flotilla.Status{
		"leads, 3 nodes, tolerates 1 failure":       {ID: "0", Leader: "0", Ready: true, Members: members(true, true, true)},
		"leads, 1 node, tolerates no failure":       {ID: "0", Leader: "0", Ready: true, Members: members(true)},
		"follows n1, 3 nodes, tolerates no failure": {ID: "0", Leader: "1", LeaderName: "n1", Ready: true, Members: members(true, true, false)},
		"follows n1, 5 nodes, tolerates 2 failures": {ID: "0", Leader: "1", LeaderName: "n1", Ready: true, Members: members(true, true, true, true, true)},
		"follows n1, 4 nodes, tolerates 1 failure":  {ID: "3", Leader: "1", LeaderName: "n1", Ready: true, Members: follower},
		"drains, 3 nodes, tolerates 1 failure":      {ID: "0", Leader: "1", Ready: true, Draining: true, Members: members(true, true, true)},
		"not ready, 3 nodes, tolerates 1 failure":   {ID: "0", Leader: "1", Members: members(true, true, true)},
		"no leader":                         {ID: "0", Members: members(true, true, true)},
		"takes no part: the disk is broken": {ID: "0", Leader: "0", Err: "the disk is\nbroken"},
	} {
		s.Cluster = "c"
		if got := describe(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := describe(flotilla.Status{}); got != "in no cluster yet" {
		t.Errorf("before there is a cluster: %q", got)
	}
}

// manager does what systemd does for a service with Type=notify, a watchdog and sockets, by the
// protocols that sd_notify(3) and sd_listen_fds(3) describe.
type manager struct {
	t       *testing.T
	notify  *net.UnixConn
	sockets []*os.File
	env     []string
}

// newManager opens sockets on those addresses of loopback.
func newManager(t *testing.T, addrs ...*string) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { notify.Close() })
	m := &manager{t: t, notify: notify, env: []string{
		"API_TEST_PROCESS=1", "NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=400000", fmt.Sprintf("LISTEN_FDS=%d", len(addrs)),
	}}
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // as those of systemd
	for _, addr := range addrs {
		ln, err := plain.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		file, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		*addr = ln.Addr().String()
		ln.Close() // file is another descriptor of the socket
		t.Cleanup(func() { file.Close() })
		m.sockets = append(m.sockets, file)
	}
	return m
}

// start starts the program, with further variables.
func (m *manager) start(log io.Writer, env ...string) *exec.Cmd {
	m.t.Helper()
	// The variables have to name the process, which keeps its ID over exec.
	cmd := exec.CommandContext(m.t.Context(), "/bin/sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env, cmd.ExtraFiles, cmd.Stderr = append(env, m.env...), m.sockets, log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return cmd
}

// hear waits until the program has said want, and returns what it has said before.
func (m *manager) hear(want string) (before []string) {
	m.t.Helper()
	m.notify.SetReadDeadline(time.Now().Add(20 * time.Second))
	for buf := make([]byte, 4096); ; {
		n, err := m.notify.Read(buf)
		if err != nil {
			m.t.Fatalf("waiting for %s after %q: %v", want, before, err)
		}
		if said := string(buf[:n]); said != want {
			before = append(before, said)
			continue
		}
		return before
	}
}

// The program as a service, in processes of its own, with a service manager that speaks the
// protocols of systemd. deploy/systemd/try.sh does more, with systemd itself.
func TestSystemdProtocol(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	var https, health string
	m := newManager(t, &https, &health)
	env := []string{"API_HTTPS_ADDR=" + https, "API_HTTP_ADDR=127.0.0.1:0", "API_HEALTH_ADDR=" + health}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true},
	}}
	get := func(url string) (status int, err error) {
		res, err := client.Get(url)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}
	first := m.start(t.Output(), env...)
	before := m.hear("READY=1")
	if status, err := get("http://" + health + "/readyz"); err != nil || status != http.StatusOK {
		t.Errorf("/readyz: %d, %v", status, err)
	}
	if status, err := get("https://" + https + "/"); err != nil || status != http.StatusOK {
		t.Errorf("https: %d, %v", status, err)
	}
	const leads = "STATUS=leads, 1 node, tolerates no failure"
	if !slices.Contains(before, leads) {
		m.hear(leads)
	}
	for range 3 {
		m.hear("WATCHDOG=1")
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.Wait()

	// Clients wait for the next process.
	waited := make(chan error, 1)
	go func() {
		status, err := get("https://" + https + "/")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		waited <- err
	}()
	second := m.start(t.Output(), env...)
	m.hear("READY=1")
	if err := <-waited; err != nil {
		t.Errorf("a client between two processes: %v", err)
	}
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	const drains = "STATUS=drains, 1 node, tolerates no failure"
	if before := m.hear("STOPPING=1"); !slices.Contains(before, drains) {
		m.hear(drains)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("the program ends with %v", err)
	}
}

// A socket that the program would leave alone is an error, since its clients would wait for ever.
func TestForeignSocket(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	var https string
	m := newManager(t, &https)
	var log bytes.Buffer
	err := m.start(&log, "API_HTTPS_ADDR=127.0.0.1:8443").Wait()
	exit := new(exec.ExitError)
	want := "systemd listens on " + https + ", and this program on the ports of 127.0.0.1:8443 :80 127.0.0.1:8081 only\n"
	if diff := cmp.Diff(want, log.String()); !errors.As(err, &exit) || diff != "" {
		t.Errorf("the program ends with %v (-want +got):\n%s", err, diff)
	}
}

// listenAgain does what flotilla.Serve does when it opens its node anew: it gets a socket, closes
// it, and gets it again. At last it takes a connection.
func listenAgain(addr string) error {
	listen, err := activated(addr)
	if err != nil {
		return err
	}
	for range 2 {
		ln, err := listen("tcp", addr)
		if err != nil {
			return err
		}
		if err := ln.Close(); err != nil {
			return err
		}
	}
	ln, err := listen("tcp", addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	if other, err := listen("tcp", "127.0.0.1:1"); other != nil || err != nil {
		return fmt.Errorf("a port without a socket: %v, %v", other, err)
	}
	_, err = io.WriteString(conn, "taken")
	return err
}

// The sockets of systemd serve again after they were closed.
func TestActivatedAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	var https string
	m := newManager(t, &https)
	conn, err := net.Dial("tcp", https) // waits in the socket
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := m.start(t.Output(), "API_TEST_LISTEN="+https).Wait(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "taken" {
		t.Errorf("%q, %v", got, err)
	}
}
