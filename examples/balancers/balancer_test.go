package balancers

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/flotilla-ha/flotilla/examples/internal/lab"
)

// configure writes the configuration beside this file into a directory of the test, with what is in edits, pairs of old and new, changed,
// and the nodes' addresses too. Each must be there: a test of a file that nobody has is worth nothing.
func (f *fleet) configure(t *testing.T, name string, edits ...string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range f.nodes {
		edits = append(edits, fmt.Sprintf("10.0.0.1%d:443", i+1), m.settings.HTTPS, fmt.Sprintf("10.0.0.1%d:80", i+1), m.settings.HTTP)
	}
	text := string(content)
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			t.Fatalf("%s has no %q, which this test replaces", name, edits[i])
		}
		text = strings.ReplaceAll(text, edits[i], edits[i+1])
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// startHAProxy starts it for as long as the test lives.
func (f *fleet) startHAProxy(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "flotilla") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f.stats = filepath.Join(dir, "s")
	path := f.configure(t, "haproxy.cfg",
		"\tuser haproxy\n\tgroup haproxy\n", "",
		"/run/haproxy/admin.sock", f.stats,
		"maxconn 20000\n", "maxconn 1000\n",
		"bind :443\n", "bind "+f.haproxy().addr+"\n",
		"bind :80\n", "bind "+lab.HostPort(net.ParseIP(proxyIP), f.httpPort())+"\n",
		"port 8081", fmt.Sprint("port ", f.ports[3]))
	run(t, exec.Command("haproxy", "-db", "-f", path), syscall.SIGTERM)
	await(t, func(ctx context.Context) error { _, err := f.states(ctx); return err })
}

// startNginx starts it, after the nodes, for as long as the test lives. If it is not installed, tests of it skip.
func (f *fleet) startNginx(t *testing.T) {
	t.Helper()
	if missingNginx() != "" {
		return
	}
	path := f.configure(t, "nginx.conf",
		"user www-data;\n", "",
		"worker_processes auto;", "worker_processes 1;", // each has its own opinion of the nodes
		"worker_rlimit_nofile 40000;\n", "",
		"worker_connections 20000;", "worker_connections 1000;",
		"/run/nginx.pid", filepath.Join(t.TempDir(), "pid"),
		"/var/log/nginx/error.log", "stderr",
		"listen 443 ", "listen "+f.nginx().addr+" ",
		"listen 80 ", "listen "+lab.HostPort(net.ParseIP(nginxIP), f.httpPort())+" ")
	run(t, exec.Command("nginx", "-e", "stderr", "-c", path, "-g", "daemon off;"), syscall.SIGTERM)
	c := f.client(f.nginx(), "HTTP/1.1")
	defer c.CloseIdleConnections()
	await(t, func(ctx context.Context) error { _, err := ask(ctx, c, nil); return err })
}

// missingNginx says what there is not of nginx; empty: nothing.
func missingNginx() string {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return "nginx"
	}
	built, err := exec.Command(path, "-V").CombinedOutput()
	modules, _ := filepath.Glob("/etc/nginx/modules-enabled/*stream.conf")
	if err != nil || len(modules) == 0 && (!strings.Contains(string(built), "--with-stream") || strings.Contains(string(built), "--with-stream=dynamic")) {
		return "libnginx-mod-stream"
	}
	return ""
}

// run runs a program until the end of the test, and shows what it said if the test failed.
func run(t *testing.T, cmd *exec.Cmd, end syscall.Signal) {
	t.Helper()
	var log logbook
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		select {
		case <-exited:
			t.Errorf("%s has ended by itself: %s", cmd.Path, cmd.ProcessState)
		default:
			cmd.Process.Signal(end)
			<-exited
		}
		if t.Failed() {
			t.Logf("%s has said\n%s", cmd.Path, log.tail())
		}
	})
}

// states asks HAProxy for the states of its servers, by backend and server: "UP L7OK".
func (f *fleet) states(ctx context.Context) (map[string]string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", f.stats)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := io.WriteString(conn, "show stat\n"); err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(conn).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, errors.New("HAProxy says nothing of its servers")
	}
	column := make(map[string]int)
	for i, name := range rows[0] {
		column[strings.TrimPrefix(name, "# ")] = i
	}
	states := make(map[string]string)
	for _, row := range rows[1:] {
		states[row[column["pxname"]]+"/"+row[column["svname"]]] = strings.TrimSpace(row[column["status"]] + " " + row[column["check_status"]])
	}
	return states, nil
}

// awaitState waits until HAProxy says of m that it is in this state, for one of these reasons.
func (f *fleet) awaitState(t *testing.T, m *member, state string, checks ...string) {
	t.Helper()
	await(t, func(ctx context.Context) error {
		states, err := f.states(ctx)
		if err != nil {
			return err
		}
		got := states["https/"+m.settings.Name]
		for _, check := range checks {
			if got == state+" "+check {
				return nil
			}
		}
		return fmt.Errorf("HAProxy says that %s is %s, want %s %q", m.settings.Name, got, state, checks)
	})
}
