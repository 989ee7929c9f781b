package flotilla

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// MemberVariable makes the test binary a node. It does what the lines of its standard input say,
// and ends with that.
const MemberVariable = "FLOTILLA_TEST_MEMBER"

// RunMember is such a node.
func RunMember(ctx context.Context, in io.Reader, out io.Writer) error {
	cfg, err := ConfigFromEnv()
	if err != nil {
		return err
	}
	cfg.Logger = testlog.To(os.Stderr, slog.LevelDebug)
	n, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		word, name, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "ready":
			err = n.Ready(ctx)
			fmt.Fprintln(out, "ready")
		case "leads":
			s := n.Status()
			fmt.Fprintln(out, s.Leader == s.ID)
		case "hold": // for as long as the process lives
			go n.HoldLoop(ctx, Role{Name: name}, func(ctx context.Context, _ Tenure) error {
				fmt.Fprintln(out, "holds "+name)
				<-ctx.Done()
				return nil
			})
		case "lock":
			go func() {
				fmt.Fprintln(out, "locked "+name, n.Storage().Lock(ctx, name))
			}()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", word, err)
		}
	}
	return nil
}

// member is the process of a node. One goroutine uses it.
type member struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Writer
	out  *bufio.Scanner
	told chan struct{} // an element: the guard has got a death notice
}

// startMembers starts a cluster of three processes whose leases are three seconds long, and waits
// until their guards have death notices for all others.
func startMembers(t *testing.T) (all []*member) {
	t.Helper()
	addrs := freeAddrs(t, 3)
	secret := NewSecret().Encode()
	dir := t.TempDir()
	for i, addr := range addrs {
		m := &member{t: t, cmd: exec.Command("/proc/self/exe"), told: make(chan struct{}, 1)}
		m.cmd.Env = append(os.Environ(), MemberVariable+"=1", "FLOTILLA_GUARD=true", "FLOTILLA_TIMING=wan", "FLOTILLA_EXPECT=3",
			"FLOTILLA_DIR="+filepath.Join(dir, fmt.Sprint(i)), "FLOTILLA_ADDR="+addr, "FLOTILLA_NAME="+fmt.Sprint(i),
			"FLOTILLA_SECRETS="+secret, "FLOTILLA_PEERS="+strings.Join(addrs, ","))
		in, err := m.cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := m.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		m.in, m.out = in, bufio.NewScanner(out)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		m.cmd.Stderr = w
		if err := m.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		logged := make(chan struct{})
		go func() {
			defer close(logged)
			defer r.Close()
			for lines := bufio.NewScanner(r); lines.Scan(); {
				fmt.Fprintln(t.Output(), lines.Text())
				if strings.Contains(lines.Text(), "the guard has the death notice") && strings.Contains(lines.Text(), "nodes=2") {
					select {
					case m.told <- struct{}{}:
					default:
					}
				}
			}
		}()
		t.Cleanup(func() {
			in.Close() // a guard of a process that is killed would look for nodes for ten seconds
			m.cmd.Wait()
			<-logged // the guard has ended
		})
		all = append(all, m)
	}
	for _, m := range all {
		m.ask("ready", "ready")
	}
	for _, m := range all {
		<-m.told
	}
	return all
}

// ask sends a line and waits for an answer. An empty answer stands for none.
func (m *member) ask(line, answer string) {
	m.t.Helper()
	if _, err := fmt.Fprintln(m.in, line); err != nil {
		m.t.Fatal(err)
	}
	if answer != "" {
		m.expect(answer)
	}
}

// expect waits for an answer.
func (m *member) expect(answer string) {
	m.t.Helper()
	if !m.out.Scan() || m.out.Text() != answer {
		m.t.Fatalf("the node says %q, want %q: %v", m.out.Text(), answer, m.out.Err())
	}
}

// leads reports whether the node leads.
func (m *member) leads() bool {
	m.ask("leads", "")
	return m.out.Scan() && m.out.Text() == "true"
}

// What a killed process held goes to the nodes that wait for it, long before its lease has expired:
// a role of Hold and a lock of the storage, whether the process led or not.
func TestGuardReportsDeath(t *testing.T) {
	SkipShort(t)
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprintf("leads %v", leads), func(t *testing.T) {
			all := startMembers(t)
			for i := range all {
				if all[i].leads() == leads {
					all[0], all[i] = all[i], all[0]
					break
				}
			}
			holder, next, other := all[0], all[1], all[2]
			holder.ask("hold r", "holds r")
			holder.ask("lock k", "locked k <nil>")
			next.ask("hold r", "")
			other.ask("lock k", "")
			next.ask("ready", "ready") // so the claims are on their way
			other.ask("ready", "ready")
			start := time.Now()
			if err := holder.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			next.expect("holds r")
			role := time.Since(start)
			other.expect("locked k <nil>")
			t.Logf("the role moved after %v, the lock after %v", role, time.Since(start))
			if took := time.Since(start); took > time.Second {
				t.Errorf("both moved after %v", took)
			}
		})
	}
}

// A guard that cannot start is an error of Open, before anything is written.
func TestGuardDoesNotStart(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := startGuard(t.Context(), testlog.None())
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if wrong := new(ConfigError); !errors.As(err, &wrong) || wrong.Field != "Guard" || !errors.Is(err, unix.EMFILE) {
		t.Errorf("without files: %v", err)
	}
	mine := errors.New("mine")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(mine)
	if _, err := startGuard(ctx, testlog.None()); !errors.Is(err, mine) || !strings.Contains(err.Error(), "starting the guard") {
		t.Errorf("the caller has ended it: %v", err)
	}
}

// guards returns how many guards this process has.
func guards(t *testing.T) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		stat, _ := os.ReadFile(name) // an error: the process has ended
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		_, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) && strings.Contains(string(line), "flotilla guard") {
			n++
		}
	}
	return n
}

// A process has one guard for all its nodes. The guard ends with the last of them, and when Open
// fails.
func TestGuardEnds(t *testing.T) {
	SkipShort(t)
	want := func(when string, n int) {
		t.Helper()
		if got := guards(t); got != n {
			t.Errorf("%s: %d guards, want %d", when, got, n)
		}
	}
	cfg := Config{Guard: true, Logger: testlog.None()}
	cfg, err := cfg.WithDefaults() // has a PeerDial, which is not the user's
	if err != nil {
		t.Fatal(err)
	}
	var nodes []*Node
	for range 2 {
		n, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		nodes = append(nodes, n)
		want("while nodes are open", 1)
	}
	taken := cfg
	taken.Addr = nodes[0].Status().Addr
	_, err = Open(t.Context(), taken)
	if wrong := new(ConfigError); !errors.As(err, &wrong) || wrong.Field != "Addr" {
		t.Errorf("an address that is taken: %v", err)
	}
	want("when Open has failed", 1)
	if err := nodes[0].Close(); err != nil {
		t.Error(err)
	}
	want("when one node is closed", 1)
	if err := nodes[1].Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	want("when both are closed", 0)
}
