package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/guard/remover"
)

const (
	four = "192.0.2.1/32"
	six  = "2001:db8::1/128"
)

// cleanedUp waits until the guard of a dead program has exited, and fails the test unless it did
// everything, in order: the addresses, the death notice, the table.
func (h *host) cleanedUp(n *network) {
	h.t.Helper()
	n.await(false, four)
	n.await(false, six)
	if status := h.ended(); !status.Exited() || status.ExitStatus() != 0 {
		h.t.Errorf("the guard ended with %#x", status)
	}
	if diff := cmp.Diff([]string{"remove 2", "notice it-is-dead", "table flotilla"}, h.hooked()); diff != "" {
		h.t.Error(diff)
	}
}

// closed closes the guard and returns how it ended.
func (h *host) closed() string {
	h.t.Helper()
	end := h.do("close")
	h.guard = 0
	return end
}

// owner starts a program that has both addresses.
func owner(t testing.TB, n *network) *host {
	t.Helper()
	h := newHost(t, true)
	h.do("extend 1h")
	h.do("watch %s %s", four, six)
	h.do("table flotilla")
	h.do("notice it-is-dead")
	h.do("add")
	n.await(true, four)
	n.await(true, six)
	return h
}

// However a program ends, its guard removes the addresses, sends the death notice, removes the
// table, and exits.
func TestDeath(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, c := range []struct {
		name string
		die  func(h *host)
	}{
		{"killed", func(h *host) { h.kill(unix.SIGKILL) }},
		{"segmentation fault", func(h *host) { h.kill(unix.SIGSEGV) }},
		{"panic", func(h *host) { h.send("panic") }},
		{"exit without closing", func(h *host) { h.send("exit") }},
		{"killed while stopped", func(h *host) { h.stop(); h.kill(unix.SIGKILL) }},
		{"the guard is sent signals", func(h *host) {
			for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGABRT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2} {
				unix.Kill(h.guard, sig)
			}
			h.do("watch %s %s", four, six) // it still answers
			h.kill(unix.SIGKILL)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t)
			h := owner(t, n)
			c.die(h)
			h.cleanedUp(n)
		})
	}
}

// The hooks are called for a program without addresses too. This test needs no permission.
func TestDeathWithoutRoot(t *testing.T) {
	h := newHost(t, true)
	h.do("notice it-is-dead")
	h.kill(unix.SIGKILL)
	if status := h.ended(); !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("the guard ended with %#x", status)
	}
	if diff := cmp.Diff([]string{"notice it-is-dead"}, h.hooked()); diff != "" {
		t.Error(diff)
	}
}

// A closed guard touches nothing. Its process is gone and reaped when Close returns.
func TestClose(t *testing.T) {
	n := newNetwork(t)
	h := owner(t, n)
	pid := h.guard
	if end := h.closed(); end != "exit status 0" {
		t.Errorf("the guard's end: %s", end)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("process %d is there: %v", pid, err)
	}
	h.kill(unix.SIGKILL)
	h.cmd.Wait()
	if did := h.hooked(); len(did) > 0 {
		t.Errorf("the guard did %q", did)
	}
	if diff := cmp.Diff([]string{four, six}, n.has()); diff != "" {
		t.Error(diff)
	}
}

// A program that stands still past its deadline loses its addresses but not the table. When it runs
// again it learns that, and can put the addresses back.
func TestStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	n := newNetwork(t)
	h := owner(t, n)
	h.do("extend 200ms")
	h.stop()
	n.await(false, four)
	n.await(false, six)

	// An address that appears late is removed at once. That happens when a program is stopped after
	// it looked at its lease and before it adds the address.
	late := newHost(t, true)
	late.do("watch %s", four)
	late.do("add")
	n.await(true, four)
	n.await(false, four)
	late.closed()

	h.kill(unix.SIGCONT)
	h.do("removals 0")
	h.do("extend 1h")
	h.do("watch %s %s", four, six) // acknowledged after the guard has looked at the deadline
	h.do("add")
	n.await(true, four)
	if diff := cmp.Diff([]string{four, six}, n.has()); diff != "" {
		t.Error(diff)
	}
	h.kill(unix.SIGKILL)
	n.await(false, four)
	h.ended()
	did := h.hooked()
	if i := slices.Index(did, "notice it-is-dead"); i < 2 || did[i-1] != "remove 2" {
		t.Errorf("the guard did %q", did)
	}
}

// A deadline counts also if it passes while the program runs, or if it moves to an earlier time.
func TestDeadline(t *testing.T) {
	n := newNetwork(t)
	h := owner(t, n)
	for i := range 3 {
		h.do("extend 20ms")
		n.await(false, four)
		n.await(false, six)
		h.do("removals %d", i)
		h.do("extend 1h")
		h.do("watch %s %s", four, six)
		h.do("add")
		n.await(true, four)
		n.await(true, six)
	}
	h.closed()
	if diff := cmp.Diff([]string{four, six}, n.has()); diff != "" {
		t.Error(diff)
	}
}

// An address that is added when the deadline has passed is removed too.
func TestAddressAfterTheDeadline(t *testing.T) {
	n := newNetwork(t)
	h := owner(t, n)
	h.do("extend 20ms")
	n.await(false, four)
	n.await(false, six)
	h.do("add")
	n.await(true, four)
	n.await(false, four)
}

// A guard whose deadline keeps moving removes nothing.
func TestExtended(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits, and has a network of its own
	n := newNetwork(t)
	h := owner(t, n)
	end := time.Now().Add(2 * time.Second) // several deadlines
	for time.Now().Before(end) {
		h.do("extend 500ms")
		<-time.After(10 * time.Millisecond)
	}
	if diff := cmp.Diff([]string{four, six}, n.has()); diff != "" {
		t.Error(diff)
	}
	h.closed()
	h.in.Close()
	if did := h.hooked(); len(did) > 0 {
		t.Errorf("the guard did %q", did)
	}
}

// A guard that dies or stands still is replaced by one that knows everything.
func TestGuardReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits, and has a network of its own
	for _, c := range []struct {
		name  string
		spoil func(h *host)
	}{
		{"killed", func(h *host) { unix.Kill(h.guard, unix.SIGKILL) }},
		{"stopped, and asked", func(h *host) {
			unix.Kill(h.guard, unix.SIGSTOP)
			h.send("notice it-is-dead")
			if h.out.Scan(); !strings.Contains(h.out.Text(), "not running") {
				h.t.Errorf("answer: %q", h.out.Text())
			}
		}},
		{"stopped, and renewed", func(h *host) {
			h.do("renew")
			unix.Kill(h.guard, unix.SIGSTOP)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t)
			h := owner(t, n)
			old := h.guard
			c.spoil(h)
			next, err := strconv.Atoi(h.do("successor %d", old))
			if err != nil {
				t.Fatal(err)
			}
			h.guard = next
			if err := unix.Kill(old, 0); err != unix.ESRCH {
				t.Errorf("process %d is there: %v", old, err)
			}
			if diff := cmp.Diff([]string{four, six}, n.has()); diff != "" {
				t.Error(diff)
			}
			h.kill(unix.SIGKILL)
			h.cleanedUp(n)
		})
	}
}

// If the first guard is not ready in time, another one follows without a new call, and it knows
// everything.
func TestFirstGuardLate(t *testing.T) {
	n := newNetwork(t)
	h := newHost(t, false)
	if alive := h.do("try"); alive != "false" {
		t.Errorf("a guard is there in no time: %s", alive)
	}
	for _, command := range []string{"watch " + four + " " + six, "table flotilla", "notice it-is-dead"} {
		h.send("%s", command)
		h.out.Scan() // an error if there is no guard yet
	}
	h.do("add")
	next, err := strconv.Atoi(h.do("successor 0"))
	if err != nil {
		t.Fatal(err)
	}
	h.guard = next
	if diff := cmp.Diff([]string{four, six}, n.has()); diff != "" {
		t.Error(diff)
	}
	h.kill(unix.SIGKILL)
	h.cleanedUp(n)
}

// If program and guard are killed together the addresses are left to the kernel, and nothing hangs.
func TestBothKilled(t *testing.T) {
	n := newNetwork(t)
	h := owner(t, n)
	h.stop() // so that it starts no other
	unix.Kill(h.guard, unix.SIGKILL)
	h.kill(unix.SIGKILL)
	if status := h.ended(); !status.Signaled() {
		t.Errorf("the guard ended with %#x", status)
	}
	if did := h.hooked(); len(did) > 0 {
		t.Errorf("the guard did %q", did)
	}
	if diff := cmp.Diff([]string{four, six}, n.has()); diff != "" {
		t.Error(diff)
	}
}

// A program that calls exec counts as dead.
func TestExec(t *testing.T) {
	n := newNetwork(t)
	h := owner(t, n)
	h.send("exec")
	n.await(false, four)
	if got := h.answer(); got != "ready" {
		t.Errorf("the new program said %q", got)
	}
	awaitExit(t, h.guard) // a zombie, until the program ends
	h.in.Close()
	if status := h.ended(); !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("the guard ended with %#x", status)
	}
}

// Other children of a program may outlive it. They may even have its end of the socket.
func TestOtherChildren(t *testing.T) {
	for _, kind := range []string{"child", "leak"} {
		t.Run(kind, func(t *testing.T) {
			n := newNetwork(t)
			h := owner(t, n)
			child, err := strconv.Atoi(h.do(kind))
			if err != nil {
				t.Fatal(err)
			}
			fd, err := unix.PidfdOpen(child, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			unix.Kill(child, unix.SIGSTOP) // it would end with the program, whose pipe it reads
			h.kill(unix.SIGKILL)
			n.await(false, four)
			n.await(false, six)
			h.ended()
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n != 0 || err != nil {
				t.Errorf("the child has ended: %v", err)
			}
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			awaitExit(t, child)
			unix.Wait4(child, nil, 0, nil)
		})
	}
}

// The kernel kills the guard of process 1 of a pid namespace along with it. Chance decides how far
// the guard gets, but it does things in order, and nothing hangs.
func TestProcessOne(t *testing.T) {
	n := newNetwork(t)
	h := newHostFlags(t, false, unix.CLONE_NEWPID)
	h.do("start") // its process ID is not one of this namespace
	h.do("watch %s", four)
	h.do("notice it-is-dead")
	h.do("add")
	n.await(true, four)
	h.kill(unix.SIGKILL)
	did := h.hooked()
	t.Logf("the guard did %q", did)
	if want := []string{"remove 1", "notice it-is-dead"}; !slices.Equal(did, want[:min(len(did), len(want))]) {
		t.Errorf("the guard did %q", did)
	}
	if len(did) > 0 && len(n.has()) > 0 {
		t.Errorf("addresses: %q", n.has())
	}
	if said := strings.Join(h.said(), "\n"); !strings.Contains(said, "process 1 of its pid namespace") {
		t.Errorf("no warning in %q", said)
	}
}

// A guard and its successor are in the network namespace of the thread that called Start, not in
// that of the process.
func TestNamespace(t *testing.T) {
	newNetwork(t)
	h := newHost(t, false)
	check := func(netns string) {
		t.Helper()
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.guard)); got != netns {
			t.Errorf("the guard is in %s, want %s: %v", got, netns, err)
		}
	}
	pid, netns, _ := strings.Cut(h.do("elsewhere"), " ")
	h.guard, _ = strconv.Atoi(pid)
	check(netns)
	unix.Kill(h.guard, unix.SIGKILL)
	h.guard, _ = strconv.Atoi(h.do("successor %s", pid))
	check(netns)
	h.closed()
}

// A variable that has leaked does not make a process a guard: what it names must be file 3.
func TestLeakedVariable(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, value := range []string{
		"", "1", "yes", "1:2:3:notices", fmt.Sprintf("%d:%d:%d:notices", version, os.Getpid(), 4711), "1:x:3:notices", "1:2::notices", strings.Repeat("1:", 1000),
	} {
		t.Run(value[:min(len(value), 20)], func(t *testing.T) {
			h := newHost(t, true, variable+"="+value) // a program, with a guard of its own
			h.closed()
			h.in.Close()
			h.cmd.Wait()
			<-h.silent
			if errs := h.said(); len(errs) > 0 {
				t.Errorf("standard error: %q", errs)
			}
		})
	}
}

// A guard says so if its program is of another version, and if its memory is not the program's.
func TestHalfRight(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        string
	}{
		{"other version", fmt.Sprintf("%d:1:SOCKET:addresses", version+1), "another version"},
		{"no memory", fmt.Sprintf("%d:1:SOCKET:addresses", version), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, theirs, err := newSocketPair()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			id, err := socketID(int(theirs.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			empty, err := os.Create(filepath.Join(t.TempDir(), "empty"))
			if err != nil {
				t.Fatal(err)
			}
			defer empty.Close()
			if err := empty.Truncate(int64(os.Getpagesize())); err != nil {
				t.Fatal(err)
			}
			cmd := sleeper()
			cmd.Env = []string{variable + "=" + strings.ReplaceAll(c.value, "SOCKET", fmt.Sprint(id))}
			cmd.ExtraFiles = []*os.File{theirs, empty, empty}
			out, err := cmd.CombinedOutput()
			theirs.Close()
			if cmd.ProcessState.ExitCode() != exitBroken || !strings.Contains(string(out), c.want) {
				t.Errorf("it ended with %v and said %q", err, out)
			}
			if c.want != "" {
				return
			}
			buf := make([]byte, maxMessage)
			k, err := conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if m, err := parse(buf[:k]); err != nil || m.kind != kindHello || m.text == "" {
				t.Errorf("its first message is %v, %v", m, err)
			}
		})
	}
}

// An address or interface that is not there any more is not an error.
func TestAlreadyGone(t *testing.T) {
	n := newNetwork(t)
	r, err := remover.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, a := range []Addr{addr(1, four), addr(1, six), addr(4711, four)} {
		if err := r.Remove(a.Index, a.Prefix); err != nil {
			t.Errorf("%v: %v", a, err)
		}
	}
	h := newHost(t, true)
	h.do("watch %s", six)
	h.do("watch %s", four)
	h.kill(unix.SIGKILL)
	if status := h.ended(); status.ExitStatus() != 0 {
		t.Errorf("the guard ended with %#x", status)
	}
	if got := n.has(); len(got) > 0 {
		t.Errorf("addresses: %q", got)
	}
}

// A hundred addresses of one program are removed. Those of another program stay.
func TestHundredAddresses(t *testing.T) {
	n := newNetwork(t)
	other := newHost(t, true)
	other.do("watch 198.51.100.1/24")
	other.do("add")
	h := newHost(t, true)
	h.do("extend 1h")
	var list []string
	for i := range 100 {
		list = append(list, fmt.Sprintf("198.51.100.%d/32", i+100))
	}
	h.do("watch %s", strings.Join(list, " "))
	h.do("add")
	start := time.Now()
	h.kill(unix.SIGKILL)
	last := n.await(false, list[99])
	t.Logf("100 addresses were gone %v after SIGKILL", last.Sub(start))
	if diff := cmp.Diff([]string{"198.51.100.1/24"}, n.has()); diff != "" {
		t.Error(diff)
	}
	h.ended()
	other.closed()
}

// The process list shows what a guard is. The test logs its memory.
func TestAppearance(t *testing.T) {
	h := newHost(t, true)
	read := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", h.guard, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimRight(string(b), "\x00\n")
	}
	if got := read("cmdline"); got != "hosting: flotilla guard" {
		t.Errorf("ps shows %q", got)
	}
	if got := read("comm"); got != "flotilla-guard" {
		t.Errorf("top shows %q", got)
	}
	env := strings.Split(read("environ"), "\x00")
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if !slices.Contains([]string{variable, "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG", "LD_LIBRARY_PATH"}, name) {
			t.Errorf("its environment has %s", name)
		}
	}
	stat := strings.Fields(read("stat")[strings.LastIndex(read("stat"), ")")+1:])
	if session := stat[3]; session != strconv.Itoa(h.guard) {
		t.Errorf("it is in session %s", session)
	}
	for _, line := range regexp.MustCompile(`(?m)^(Rss|Pss|Private_\w+|Anonymous|Locked):.*`).FindAllString(read("smaps_rollup"), -1) {
		t.Log(line)
	}
	t.Log("nice", stat[16], "oom_score_adj", read("oom_score_adj"))
	h.closed()
}

// A converted time is never later than the original, even if the process pauses meanwhile.
func TestDeadlineAt(t *testing.T) {
	if got := deadlineAt(time.Time{}); got != 0 {
		t.Errorf("no deadline: %d", got)
	}
	before := monotonic()
	until := time.Now().Add(time.Second)
	got := deadlineAt(until)
	if after := monotonic(); got < before || got > after+int64(time.Second) {
		t.Errorf("a second from now is %d, between %d and %d", got, before, after)
	}
	if got := deadlineAt(time.Now().Add(-time.Hour * 24 * 365 * 200)); got != 1 {
		t.Errorf("long ago is %d", got)
	}
	if got := deadlineAt(time.Now().Add(1<<63 - 1)); got <= before || got == never {
		t.Errorf("in centuries is %d", got)
	}
}

// What a guard would refuse is refused before it is sent.
func TestRefused(t *testing.T) {
	g := &Guard{}
	for name, err := range map[string]error{
		"no interface": g.Watch(t.Context(), []Addr{addr(0, four)}),
		"no address":   g.Watch(t.Context(), []Addr{{Index: 1}}),
		"death notice": g.DeathNotice(t.Context(), nil, make([]byte, MaxNotices)),
	} {
		if err == nil || err == ErrDown {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := g.Watch(t.Context(), nil); err != ErrDown {
		t.Errorf("without a guard: %v", err)
	}
}
