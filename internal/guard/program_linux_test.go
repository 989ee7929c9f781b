package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/guard/remover"
)

// The test binary has three roles: the test; a program with floating addresses, which the test
// commands through its standard input; and that program's guard.

const (
	programVariable = "GUARD_TEST_PROGRAM"
	refused         = "guardtest=refused" // in GODEBUG: no guard works with addresses
)

func TestMain(m *testing.M) {
	for _, d := range []Duty{Notices, Addresses} {
		if IsGuard(d) {
			Main(testHooks(d))
		}
	}
	switch os.Getenv(programVariable) {
	case "program":
		program()
	case "sleeper": // another process, which ends with its standard input
		fmt.Println("ready")
		bufio.NewReader(os.Stdin).ReadString(0)
		os.Exit(0)
	}
	// Guards of dead programs become children of this process, which can therefore see how they
	// end.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "subreaper:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// testHooks report on standard error what they do. They remove addresses if that is permitted.
func testHooks(d Duty) Hooks {
	h := Hooks{
		RemoveTable: func(name string) error { say("hook table %s", name); return nil },
		SendNotice:  func(_ context.Context, notice []byte) error { say("hook notice %s", notice); return nil },
		Rehearse:    func(_ context.Context, notice []byte) { say("rehearsed %s", notice) },
	}
	if d == Addresses {
		r, err := remover.Open()
		h.Remove = func(addrs []Addr) error {
			for _, a := range addrs {
				if err != nil {
					break
				}
				if err := r.Remove(a.Index, a.Prefix); err != nil {
					return err
				}
			}
			say("hook remove %d", len(addrs))
			return nil
		}
		h.Prepare = func() error {
			if os.Getenv("GODEBUG") == refused {
				return errors.New("the test does not permit it")
			}
			return nil
		}
	}
	return h
}

// program obeys lines on standard input and answers each with a line.
func program() {
	ctx := context.Background()
	var g *Guard
	shares := make(map[string]*Share)
	var addrs []Addr
	var ballast []byte
	commands := map[string]func(args []string) (string, error){
		"start": func([]string) (s string, err error) {
			if g, err = Start(ctx, Addresses, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
				return "", err
			}
			return strconv.Itoa(g.PID()), nil
		},
		"try": func([]string) (s string, err error) { // start, without any time for it
			none, cancel := context.WithCancel(ctx)
			cancel()
			if g, err = Start(none, Addresses, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
				return "", err
			}
			return strconv.FormatBool(g.Alive()), nil
		},
		"elsewhere": func([]string) (string, error) { // start, in another network namespace
			runtime.LockOSThread() // for good
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return "", err
			}
			var err error
			if g, err = Start(ctx, Addresses, nil); err != nil {
				return "", err
			}
			netns, err := os.Readlink("/proc/thread-self/ns/net")
			return fmt.Sprint(g.PID(), " ", netns), err
		},
		"join": func(args []string) (string, error) { // a share by name, for a duty
			s, err := Join(ctx, Duty(args[1]), slog.New(slog.NewTextHandler(os.Stderr, nil)))
			if err != nil {
				return "", err
			}
			g, shares[args[0]] = s.guard, s
			if err := s.Await(ctx); err != nil {
				return "not yet: " + err.Error(), nil
			}
			return strconv.Itoa(g.PID()), nil
		},
		"share": func(args []string) (string, error) { // a share's death notice
			return "", shares[args[0]].DeathNotice(ctx, []byte(args[1]))
		},
		"part": func(args []string) (string, error) { return "", shares[args[0]].Close() },
		"watch": func(args []string) (string, error) {
			addrs = nil
			for _, p := range args {
				addrs = append(addrs, Addr{Index: 1, Prefix: netip.MustParsePrefix(p)})
			}
			return "", g.Watch(ctx, addrs)
		},
		"add": func([]string) (string, error) {
			for _, a := range addrs {
				ip := a.Prefix.Addr()
				n := &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), ip.BitLen())}
				if err := netlink.AddrReplace(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}, &netlink.Addr{IPNet: n}); err != nil {
					return "", err
				}
			}
			return "", nil
		},
		"table":  func(args []string) (string, error) { return "", g.Table(ctx, args[0]) },
		"notice": func(args []string) (string, error) { return "", g.DeathNotice(ctx, nil, []byte(args[0])) },
		"extend": func(args []string) (string, error) {
			d, err := time.ParseDuration(args[0])
			g.Extend(time.Now().Add(d))
			return "", err
		},
		"renew": func([]string) (string, error) { // as vip does, until the program ends
			go func() {
				for range time.Tick(20 * time.Millisecond) {
					g.Extend(time.Now().Add(200 * time.Millisecond))
				}
			}()
			return "", nil
		},
		"successor": func(args []string) (string, error) { // waits for another guard
			for {
				changed := g.Changed()
				if pid := g.PID(); g.Alive() && strconv.Itoa(pid) != args[0] {
					return strconv.Itoa(pid), nil
				}
				<-changed
			}
		},
		"removals": func(args []string) (string, error) { // waits until there are more than that
			n, err := strconv.ParseUint(args[0], 10, 64)
			for err == nil {
				changed := g.Changed()
				if now := g.Removals(); now > n {
					return strconv.FormatUint(now, 10), nil
				}
				<-changed
			}
			return "", err
		},
		"close": func([]string) (string, error) { // answered with the guard's end
			p := g.proc
			err := g.Close()
			return p.result(), err
		},
		"exit":  func([]string) (string, error) { os.Exit(0); return "", nil },
		"panic": func([]string) (string, error) { panic("at the test's wish") },
		"exec": func([]string) (string, error) {
			os.Setenv(programVariable, "sleeper")
			return "", syscall.Exec("/proc/self/exe", os.Args, os.Environ())
		},
		"leak": func([]string) (string, error) { // starts a process with the program's socket
			f, err := g.proc.conn.File()
			if err != nil {
				return "", err
			}
			cmd := sleeper()
			cmd.ExtraFiles = []*os.File{f}
			return spawn(cmd)
		},
		"child": func([]string) (string, error) { return spawn(sleeper()) },
		"eat": func(args []string) (string, error) {
			n, err := strconv.Atoi(args[0])
			ballast = make([]byte, n<<20)
			for i := 0; i < len(ballast); i += 4096 {
				ballast[i] = 1
			}
			return "", err
		},
	}
	lines := make(chan string)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
		os.Exit(0) // the test is over
	}()
	for line := range lines {
		args := strings.Fields(line)
		answer, err := commands[args[0]](args[1:])
		if err != nil {
			answer = "error: " + err.Error()
		}
		fmt.Println(answer)
	}
}

// sleeper is a process that lives until its standard input ends.
func sleeper() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{programVariable + "=sleeper"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// spawn starts cmd and returns its process ID when it runs.
func spawn(cmd *exec.Cmd) (string, error) {
	r, _, err := os.Pipe() // the write end stays open in no process but this one
	if err != nil {
		return "", err
	}
	cmd.Stdin = r
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return "", err
	}
	return strconv.Itoa(cmd.Process.Pid), nil
}

// host is a running program, as the test sees it.
type host struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    *os.File
	out   *bufio.Scanner
	guard int // process ID

	mu     sync.Mutex
	errs   []string
	silent chan struct{} // closed when program and guard have closed their standard error
}

// newHost starts a program in the network namespace of this thread. If start is true it starts the
// guard too.
func newHost(t testing.TB, start bool, env ...string) *host {
	t.Helper()
	return newHostFlags(t, start, 0, env...)
}

// newHostFlags is newHost with flags for clone(2).
func newHostFlags(t testing.TB, start bool, clone uintptr, env ...string) *host {
	t.Helper()
	h := &host{t: t, cmd: exec.Command("/proc/self/exe"), silent: make(chan struct{})}
	h.cmd.Args = []string{"/some/where/hosting"}
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: clone}
	h.cmd.Env = append(append(os.Environ(), programVariable+"=program", "GORACE=atexit_sleep_ms=0"), env...)
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.in, h.out = inW, bufio.NewScanner(outR)
	h.cmd.Stdin, h.cmd.Stdout, h.cmd.Stderr = inR, outW, errW
	err = h.cmd.Start()
	inR.Close()
	outW.Close()
	errW.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(h.silent)
		defer errR.Close()
		for s := bufio.NewScanner(errR); s.Scan(); {
			h.mu.Lock()
			h.errs = append(h.errs, s.Text())
			h.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		inW.Close()
		h.cmd.Process.Kill()
		h.cmd.Wait()
		if h.guard != 0 {
			unix.Kill(h.guard, unix.SIGKILL) // after a failure: it is this process's child
			unix.Wait4(h.guard, nil, 0, nil)
		}
		outR.Close()
		if t.Failed() {
			t.Logf("standard error: %q", h.said())
		}
	})
	if start {
		h.guard, err = strconv.Atoi(h.do("start"))
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *host) said() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.errs...)
}

// awaitSaid waits until program or guard have written text to their standard error.
func (h *host) awaitSaid(text string) {
	h.t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(strings.Join(h.said(), "\n"), text); <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("nobody has said %q", text)
		}
	}
}

// hooked waits until program and guard are gone and returns what the guard's hooks have done.
func (h *host) hooked() (did []string) {
	h.t.Helper()
	select {
	case <-h.silent:
	case <-time.After(30 * time.Second):
		h.t.Fatal("program and guard have not ended")
	}
	for _, line := range h.said() {
		if _, what, ok := strings.Cut(line, ": hook "); ok {
			did = append(did, what)
		}
	}
	return did
}

// send sends the program a command without waiting for the answer.
func (h *host) send(format string, args ...any) {
	h.t.Helper()
	if _, err := fmt.Fprintf(h.in, format+"\n", args...); err != nil {
		h.t.Fatal(err)
	}
}

// answer waits for the answer to the oldest command.
func (h *host) answer() string {
	h.t.Helper()
	if !h.out.Scan() {
		h.t.Fatalf("the program is gone: %v", h.out.Err())
	}
	if text := h.out.Text(); strings.HasPrefix(text, "error: ") {
		h.t.Fatal(text)
	}
	return h.out.Text()
}

// do sends the program a command and returns its answer.
func (h *host) do(format string, args ...any) string {
	h.t.Helper()
	h.send(format, args...)
	return h.answer()
}

func (h *host) kill(sig syscall.Signal) {
	h.t.Helper()
	if err := h.cmd.Process.Signal(sig); err != nil {
		h.t.Fatal(err)
	}
}

// stop stops the program. It returns when none of its threads runs.
func (h *host) stop() {
	h.t.Helper()
	h.kill(unix.SIGSTOP)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(h.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		h.t.Fatalf("the program has not stopped: %#x, %v", status, err)
	}
}

// ended waits for the program, then for its guard, and returns the guard's exit status.
func (h *host) ended() syscall.WaitStatus {
	h.t.Helper()
	h.cmd.Wait()
	return h.guardEnded()
}

// guardEnded waits for the guard of a program that has ended.
func (h *host) guardEnded() syscall.WaitStatus {
	h.t.Helper()
	awaitExit(h.t, h.guard)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(h.guard, &status, 0, nil); err != nil {
		h.t.Fatalf("wait for the guard: %v", err)
	}
	h.guard = 0
	return status
}

// awaitExit waits until a process has ended.
func awaitExit(t testing.TB, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(30 * time.Second)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if n != 1 {
			t.Fatalf("process %d has not ended", pid)
		}
		return
	}
}

// network is a network namespace of one test.
type network struct {
	t      testing.TB
	handle *netlink.Handle
	events chan netlink.AddrUpdate
}

// newNetwork moves the calling goroutine into a new network namespace. The namespace ends with the
// goroutine and with the processes that it has started.
func newNetwork(t testing.TB) *network {
	t.Helper()
	runtime.LockOSThread() // for good
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("network namespaces are for root: %v", err)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(handle.Close)
	if err := handle.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1, Name: "lo"}}); err != nil {
		t.Fatal(err)
	}
	n := &network{t: t, handle: handle, events: make(chan netlink.AddrUpdate, 4096)}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	if err := netlink.AddrSubscribe(n.events, done); err != nil {
		t.Fatal(err)
	}
	return n
}

// await waits until the kernel reports that an address is there, or that it is gone. It returns the
// time of the report.
func (n *network) await(there bool, prefix string) time.Time {
	n.t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case e := <-n.events:
			if e.NewAddr == there && e.LinkAddress.String() == prefix {
				return time.Now()
			}
		case <-timeout:
			n.t.Fatalf("address %s: want there=%v", prefix, there)
		}
	}
}

// has returns the addresses of the loopback interface, except its own.
func (n *network) has() (addrs []string) {
	n.t.Helper()
	all, err := n.handle.AddrList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}, netlink.FAMILY_ALL)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, a := range all {
		if !a.IP.IsLoopback() {
			addrs = append(addrs, a.IPNet.String())
		}
	}
	return addrs
}
