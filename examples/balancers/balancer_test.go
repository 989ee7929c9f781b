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

	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

// configure writes a configuration of this directory into a directory of the test. It replaces the
// addresses of the nodes and the edits, which are pairs of old and new texts. Each old text must
// exist, so that the test is about the real file.
func (cl *cluster) configure(t *testing.T, name string, edits ...string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range cl.nodes {
		edits = append(edits,
			fmt.Sprintf("10.0.0.1%d:443", i+1), m.settings.HTTPS,
			fmt.Sprintf("10.0.0.1%d:80", i+1), m.settings.HTTP)
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

// startHAProxy starts HAProxy until the end of the test.
func (cl *cluster) startHAProxy(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "flotilla") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cl.stats = filepath.Join(dir, "s")
	path := cl.configure(t, "haproxy.cfg",
		"\tuser haproxy\n\tgroup haproxy\n", "",
		"/run/haproxy/admin.sock", cl.stats,
		"maxconn 20000\n", "maxconn 1000\n",
		"bind :443\n", "bind "+cl.haproxy().addr+"\n",
		"bind :80\n", "bind "+process.HostPort(net.ParseIP(proxyIP), cl.httpPort())+"\n",
		"port 8081", fmt.Sprint("port ", cl.ports[3]))
	run(t, exec.Command("haproxy", "-db", "-f", path), syscall.SIGTERM)
	await(t, func(ctx context.Context) error { _, err := cl.states(ctx); return err })
}

// startNginx starts nginx until the end of the test, if it is installed. The nodes must run.
func (cl *cluster) startNginx(t *testing.T) {
	t.Helper()
	if missingNginx() != "" {
		return
	}
	path := cl.configure(t, "nginx.conf",
		"user www-data;\n", "",
		"worker_processes auto;", "worker_processes 1;", // each has its own view of the nodes
		"worker_rlimit_nofile 40000;\n", "",
		"worker_connections 20000;", "worker_connections 1000;",
		"/run/nginx.pid", filepath.Join(t.TempDir(), "pid"),
		"/var/log/nginx/error.log", "stderr",
		"listen 443 ", "listen "+cl.nginx().addr+" ",
		"listen 80 ", "listen "+process.HostPort(net.ParseIP(nginxIP), cl.httpPort())+" ")
	run(t, exec.Command("nginx", "-e", "stderr", "-c", path, "-g", "daemon off;"), syscall.SIGTERM)
	c := cl.client(cl.nginx(), "HTTP/1.1")
	defer c.CloseIdleConnections()
	await(t, func(ctx context.Context) error { _, err := ask(ctx, c, nil); return err })
}

// missingNginx returns the missing part of nginx; empty: none.
func missingNginx() string {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return "nginx"
	}
	built, err := exec.Command(path, "-V").CombinedOutput()
	modules, _ := filepath.Glob("/etc/nginx/modules-enabled/*stream.conf")
	static := strings.Contains(string(built), "--with-stream") && !strings.Contains(string(built), "--with-stream=dynamic")
	if err != nil || len(modules) == 0 && !static {
		return "libnginx-mod-stream"
	}
	return ""
}

// run runs a program until the end of the test. It shows the output if the test fails.
func run(t *testing.T, cmd *exec.Cmd, end syscall.Signal) {
	t.Helper()
	log := process.NewLog(nil)
	cmd.Stdout, cmd.Stderr = log, log
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
			t.Logf("the last lines of %s:\n%s", cmd.Path, log.Tail(40))
		}
	})
}

// states asks HAProxy for the states of its servers, by backend and server: "UP L7OK".
func (cl *cluster) states(ctx context.Context) (map[string]string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", cl.stats)
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
		return nil, errors.New("HAProxy lists no servers")
	}
	column := make(map[string]int)
	for i, name := range rows[0] {
		column[strings.TrimPrefix(name, "# ")] = i
	}
	states := make(map[string]string)
	for _, row := range rows[1:] {
		server := row[column["pxname"]] + "/" + row[column["svname"]]
		states[server] = strings.TrimSpace(row[column["status"]] + " " + row[column["check_status"]])
	}
	return states, nil
}

// awaitState waits until HAProxy reports this state of m, for one of these reasons.
func (cl *cluster) awaitState(t *testing.T, m *member, state string, checks ...string) {
	t.Helper()
	await(t, func(ctx context.Context) error {
		states, err := cl.states(ctx)
		if err != nil {
			return err
		}
		got := states["https/"+m.Name()]
		for _, check := range checks {
			if got == state+" "+check {
				return nil
			}
		}
		return fmt.Errorf("HAProxy reports that %s is %s, want %s %q", m.Name(), got, state, checks)
	})
}
