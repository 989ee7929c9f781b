//go:build unix

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/labnode"
)

// asNode is the variable that makes this test binary a node, or another process that benchmarks need.
const asNode = "FLOTILLA_BENCH_NODE"

func TestMain(m *testing.M) {
	netlab.Main()
	labnode.Main()
	if role := os.Getenv(asNode); role != "" {
		run := runNode
		switch role {
		case "flotilla":
			run = runFlotilla
		case "plain":
			run = runPlain
		case "slow":
			run = runSlow
		}
		if err := run(context.Background()); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// vitals is what a node process says of itself.
type vitals struct {
	flotilla.Status
	CPU time.Duration // used so far, user and system
}

// runNode is a node in a process of its own. It answers each line on its standard input by one on its standard output, and
// ends with the input.
func runNode(ctx context.Context) error {
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		return err
	}
	n, err := flotilla.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		word, rest, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "ready":
			err = n.Ready(ctx)
			fmt.Println("ok")
		case "store":
			err = n.Storage().Store(ctx, rest, make([]byte, valueSize))
			fmt.Println("ok")
		case "vitals":
			var use syscall.Rusage
			err = syscall.Getrusage(syscall.RUSAGE_SELF, &use)
			v := vitals{Status: n.Status(), CPU: time.Duration(use.Utime.Nano() + use.Stime.Nano())}
			line, jsonErr := json.Marshal(v)
			if err == nil {
				err = jsonErr
			}
			fmt.Println(string(line))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", word, err)
		}
	}
	return in.Err()
}

// process is a node in a process of its own. It is asked by one goroutine at a time.
type process struct {
	dir  string
	env  []string
	meek bool // has the processor when nobody else wants it
	cmd  *exec.Cmd
	in   *os.File
	out  *bufio.Scanner
}

// newProcesses prepares three nodes that are to form a cluster, and starts none.
func newProcesses(b *testing.B) []*process {
	b.Helper()
	secret := flotilla.NewSecret().Encode()
	addrs, dir := freeAddrs(b, 3), b.TempDir()
	all := make([]*process, len(addrs))
	for i, addr := range addrs {
		p := &process{dir: filepath.Join(dir, fmt.Sprint(i))}
		p.env = append(os.Environ(), asNode+"=1", "FLOTILLA_DIR="+p.dir, "FLOTILLA_ADDR="+addr, fmt.Sprintf("FLOTILLA_NAME=n%d", i),
			"FLOTILLA_SECRETS="+secret, "FLOTILLA_PEERS="+strings.Join(addrs, ","), "FLOTILLA_EXPECT=3")
		b.Cleanup(p.kill)
		all[i] = p
	}
	return all
}

func (p *process) start(b *testing.B) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	defer inR.Close()
	p.in = inW
	p.cmd = exec.Command(self)
	if p.meek {
		p.cmd = exec.Command("nice", "-n", "19", self)
	}
	p.cmd.Env, p.cmd.Stdin, p.cmd.Stderr = p.env, inR, os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	p.out.Buffer(nil, 1<<20)
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
}

// kill ends the process by SIGKILL and waits until it is gone.
func (p *process) kill() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.in.Close()
	p.cmd = nil
}

// ask sends a line and returns the answer.
func (p *process) ask(line string) (string, error) {
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		return "", err
	}
	if !p.out.Scan() {
		return "", fmt.Errorf("%s: the process says nothing (%v)", line, p.out.Err())
	}
	if e, bad := strings.CutPrefix(p.out.Text(), "error "); bad {
		return "", fmt.Errorf("%s: %s", line, e)
	}
	return p.out.Text(), nil
}

// awaitReady waits until all are ready.
func awaitReady(b *testing.B, all []*process) {
	b.Helper()
	for _, p := range all {
		if _, err := p.ask("ready"); err != nil {
			b.Fatal(err)
		}
	}
}

func (p *process) vitals(b *testing.B) vitals {
	b.Helper()
	line, err := p.ask("vitals")
	if err != nil {
		b.Fatal(err)
	}
	var v vitals
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		b.Fatal(err)
	}
	return v
}

// leaderOf waits until all agree on a leader among them, and returns its number.
func leaderOf(b *testing.B, all []*process) int {
	b.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		leader, agree := -1, 0
		var id string
		for i, p := range all {
			v := p.vitals(b)
			if i == 0 {
				id = v.Leader
			}
			if v.Leader == id && v.Ready {
				agree++
			}
			if v.ID == id {
				leader = i
			}
		}
		if leader >= 0 && agree == len(all) {
			return leader
		}
	}
	b.Fatal("the nodes agree on no leader")
	return -1
}
