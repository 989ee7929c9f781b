package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseArgs(t *testing.T) {
	tests := []struct {
		args []string
		want options
		err  string // part of it; empty: none
	}{
		{nil, options{}, ""},
		{[]string{"-keep", "-v", "-dir", "d"}, options{keep: true, verbose: true, dir: "d"}, ""},
		{[]string{"-help"}, options{}, flag.ErrHelp.Error()},
		{[]string{"-nodes", "5"}, options{}, "-nodes; -h lists the flags"},
		{[]string{"-dir"}, options{}, "needs an argument"},
		{[]string{"-dir", ""}, options{}, "-dir needs the name"},
		{[]string{"-keep=perhaps"}, options{}, "invalid boolean"},
		{[]string{"-v", "five"}, options{}, `"five" is one too many`},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			got, err := parseArgs(tt.args)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if err == nil && got != tt.want {
				t.Error(cmp.Diff(tt.want, got, cmp.AllowUnexported(options{})))
			}
		})
	}
}

// build returns this program.
func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts all processes: it runs without -short")
	}
	exe := filepath.Join(t.TempDir(), "quickstart")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return exe
}

// run is a running quickstart with a directory for temporary files of its own.
type run struct {
	cmd    *exec.Cmd
	tmp    string
	out    io.Closer      // standard output
	lines  *bufio.Scanner // of standard output
	output bytes.Buffer   // lines that have been read
	stderr bytes.Buffer
}

// start starts exe. It ends with the test at the latest.
func start(t *testing.T, exe string, args ...string) *run {
	t.Helper()
	r := &run{cmd: exec.Command(exe, args...), tmp: t.TempDir()}
	r.cmd.Env = append(os.Environ(), "TMPDIR="+r.tmp)
	r.cmd.Stderr = &r.stderr
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out, r.lines = out, bufio.NewScanner(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(3*time.Minute, func() { r.cmd.Process.Kill() })
	t.Cleanup(func() {
		limit.Stop()
		r.cmd.Process.Kill()
		r.cmd.Wait()
	})
	return r
}

// until reads lines of output up to one that contains text, and returns it.
func (r *run) until(t *testing.T, text string) string {
	t.Helper()
	for r.lines.Scan() {
		r.output.WriteString(r.lines.Text() + "\n")
		if strings.Contains(r.lines.Text(), text) {
			return r.lines.Text()
		}
	}
	r.cmd.Wait()
	t.Fatalf("the output ended without %q\n%s%s", text, r.output.Bytes(), r.stderr.Bytes())
	return ""
}

// end reads the rest of the output and checks the exit status, and that no temporary file is left.
func (r *run) end(t *testing.T, status int) {
	t.Helper()
	for r.lines.Scan() {
		r.output.WriteString(r.lines.Text() + "\n")
	}
	r.cmd.Wait()
	if got := r.cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("exit status %d, want %d\n%s%s", got, status, r.output.Bytes(), r.stderr.Bytes())
	}
	left, err := os.ReadDir(r.tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestQuickstart(t *testing.T) {
	r := start(t, build(t))
	r.end(t, 0)
	if r.stderr.Len() > 0 {
		t.Errorf("written to stderr: %s", r.stderr.Bytes())
	}
	if strings.Contains(r.output.String(), "\x1b") {
		t.Error("there are escape sequences, though the output is no terminal")
	}
	want := []string{
		"voting members of the cluster",
		"nodes that serve the same certificate",
		"a new leader",
		"requests failed while the leader was killed",
		"the killed node caught up",
		"requests failed in the rolling restart",
		"requests retried in the rolling restart",
		"nodes that serve it still",
		"orders placed at the authority in all",
		"planted things found by the search",
		"of these found in the nodes' files",
	}
	var held []string
	for line := range strings.Lines(r.output.String()) {
		if what, _, ok := strings.Cut(strings.TrimSpace(line), "   "); ok && strings.HasSuffix(strings.TrimSpace(line), " held") {
			held = append(held, what)
		}
	}
	if diff := cmp.Diff(want, held); diff != "" {
		t.Errorf("lines that held (-want +got):\n%s", diff)
	}
}

// With -keep the printed curl command works until ctrl-C ends everything.
func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	r := start(t, build(t), "-keep", "-dir", dir)
	curl := r.until(t, "curl ")
	m := regexp.MustCompile(`--cacert (\S+) --resolve (\S+):(\d+):(\S+) (https://\S+)$`).FindStringSubmatch(curl)
	if m == nil {
		t.Fatalf("cannot read %q", curl)
	}
	r.until(t, "ctrl-C ends it")
	text, err := os.ReadFile(m[1])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: m[2]}}
	addr := net.JoinHostPort(m[4], m[3])
	resp, err := (&http.Client{Transport: transport}).Get("https://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	transport.CloseIdleConnections()
	if err != nil || !strings.HasPrefix(string(body), "hello from ") {
		t.Errorf("got %q, %v", body, err)
	}

	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	r.end(t, 130)
	if kept, err := os.ReadDir(dir); err != nil || len(kept) != 3 {
		t.Errorf("-dir keeps %v, %v; want the directories of three nodes", kept, err)
	}
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("something still listens at the address of the balancer: %v", err)
	}

	t.Run("a used directory is refused", func(t *testing.T) {
		r := start(t, r.cmd.Path, "-dir", dir)
		r.end(t, 2)
		if !strings.Contains(r.stderr.String(), "is not empty") {
			t.Errorf("stderr: %s", r.stderr.Bytes())
		}
	})
}

func TestInterrupt(t *testing.T) {
	exe := build(t)
	for _, at := range []string{"flotilla:", "balancer", "clients", "leader ", "is back"} {
		t.Run(at, func(t *testing.T) {
			r := start(t, exe)
			r.until(t, at)
			if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			r.end(t, 130)
		})
	}
}

// The program ends when its output is closed.
func TestOutputClosed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("has no SIGPIPE")
	}
	r := start(t, build(t))
	r.until(t, "flotilla:")
	r.out.Close()
	r.end(t, 128+int(syscall.SIGPIPE))
}

// No node outlives the parent, even if the parent is killed.
func TestParentKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("finds the nodes by /proc")
	}
	r := start(t, build(t))
	r.until(t, "served by")
	nodes := children(t, r.cmd.Process.Pid)
	if len(nodes) != 3 {
		t.Fatalf("the program has %d processes, want 3", len(nodes))
	}
	r.cmd.Process.Kill()
	r.cmd.Wait()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, pid := range nodes {
		for range 1000 {
			if !alive(pid) {
				break
			}
			<-tick.C
		}
		if alive(pid) {
			t.Errorf("node %d lives on", pid)
			if p, err := os.FindProcess(pid); err == nil {
				p.Kill()
			}
		}
	}
}

// procStat returns the state and the parent of a process.
func procStat(pid int) (state string, parent int, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return "", 0, errors.New("malformed stat")
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err
}

// alive returns true if a process runs. A zombie does not.
func alive(pid int) bool {
	state, _, err := procStat(pid)
	return err == nil && state != "Z"
}

func children(t *testing.T, parent int) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, p, err := procStat(pid); err == nil && p == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}
