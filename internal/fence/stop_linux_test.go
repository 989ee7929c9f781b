package fence

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

const (
	childEnv   = "FENCE_TEST_CHILD"
	childLease = 300 * time.Millisecond
	childPace  = 50 * time.Millisecond
)

// TestMain makes the test binary the program that is stopped, if the environment says so.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child serves an address and extends its lease, in the network namespace of descriptor 3, until it
// finds that it stood still. Then it announces the address, as a program may have been about to. It
// reports on its standard output and ends with its standard input.
func child() error {
	ns, stop := 3, make(chan error, 1)
	f, err := open("stopped", ns)
	if err != nil {
		return err
	}
	if err := f.Guard(nodeDevice, v4().addr); err != nil {
		return err
	}
	if err := f.Set(Serving, 0, v4().addr); err != nil {
		return err
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil { // this thread; no goroutine runs yet
		return err
	}
	ifi, err := net.InterfaceByName(nodeDevice)
	if err != nil {
		return err
	}
	c, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, nil)
	if err != nil {
		return err
	}
	go func() {
		_, err := os.Stdin.Read(make([]byte, 1))
		stop <- err
	}()
	tick := time.NewTicker(childPace)
	for last := time.Now(); time.Since(last) < childLease; <-tick.C {
		last = time.Now()
		// Before the extension, because the process may be stopped at once after it.
		fmt.Println("until", monotonic()+childLease-time.Since(last))
		if err := f.Extend(last.Add(childLease)); err != nil {
			return err
		}
	}
	for _, a := range []netip.Addr{v4().addr, v4().node} {
		frame := arpFrame(1, broadcast(), ifi.HardwareAddr, a, a)
		_, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: broadcast()})
		fmt.Println("announced", err)
	}
	<-stop
	return nil
}

// monotonic returns the clock that all processes of the machine share.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// TestStopped stops a program while it extends its lease. No process is left to act for it.
func TestStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := newLab(t)
	openAt(t, l.node, "works-here")
	for i := range 3 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			l.t = t
			testStopped(t, l, 4*childPace+time.Duration(i)*childPace/3)
		})
	}
}

func testStopped(t *testing.T, l *lab, after time.Duration) {
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(t, int(l.node))), "namespace")}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	cmd.ExtraFiles[0].Close()
	defer cmd.Wait()
	defer cmd.Process.Kill()
	defer stdin.Close()
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
	}()
	if first, ok := <-lines; !ok || !strings.HasPrefix(first, "until") {
		t.Fatalf("the child says %q", first)
	}

	l.wire.forget()
	l.questions(v4().addr, time.Now().Add(after))
	must(t, unix.Kill(cmd.Process.Pid, unix.SIGSTOP))
	eventually(t, "the child stands still", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		must(t, err)
		return strings.Contains(string(stat), ") T ")
	})
	stopped := time.Now()
	l.questions(v4().addr, stopped.Add(childLease+4*lateness))
	last := ""
	for len(lines) > 0 {
		last = <-lines
	}
	reported, err := time.ParseDuration(strings.TrimPrefix(last, "until "))
	must(t, err)
	l.evaluate(v4().addr, time.Now().Add(reported-monotonic()))

	// It continues and sends its announcement. That must not be seen either.
	l.wire.forget()
	must(t, unix.Kill(cmd.Process.Pid, unix.SIGCONT))
	for range 2 {
		line := <-lines
		for strings.HasPrefix(line, "until") {
			line = <-lines
		}
		if !strings.HasPrefix(line, "announced") {
			t.Fatalf("the child says %q", line)
		}
		t.Log(line)
	}
	if !l.wire.wait(arpRequest, v4().node, 1, answerTime) {
		t.Error("the announcement of an address that nobody guards was not seen")
	}
	if n := len(l.wire.sights(arpRequest, v4().addr)); n > 0 {
		t.Errorf("%d stale announcements were seen", n)
	}

	// It dies. Its table stays until somebody removes it.
	must(t, cmd.Process.Kill())
	for range lines {
	}
	cmd.Wait()
	l.want(false, arpReply, v4(), func(a netip.Addr) { l.ask(a) })
	must(t, remove("stopped", int(l.node)))
	l.want(true, arpReply, v4(), func(a netip.Addr) { l.ask(a) })
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	return n
}
