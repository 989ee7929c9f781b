package guard

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// variable makes a process a guard if its file 3 is the socket that the variable's value names.
	variable = "FLOTILLA_GUARD"

	socketFD = 3
	memoryFD = 4
	bellFD   = 5

	exitBroken = 2 // of a guard that cannot work
)

// proof is what the variable says.
type proof struct {
	version int
	pid     int    // the program's
	socket  uint64 // the guard's end
}

// readProof reads the variable and looks whether file 3 is what it says. One that has leaked into another process, or a file 3 that is something else, is none.
func readProof() (proof, bool) {
	value, ok := os.LookupEnv(variable)
	if !ok {
		return proof{}, false
	}
	fields := strings.Split(value, ":")
	if len(fields) < 3 {
		return proof{}, false
	}
	v, err1 := strconv.Atoi(fields[0])
	pid, err2 := strconv.Atoi(fields[1])
	socket, err3 := strconv.ParseUint(fields[2], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return proof{}, false
	}
	id, err := socketID(socketFD)
	return proof{v, pid, socket}, err == nil && id == socket
}

// socketID returns the number that the kernel gives to a socket of the kind that program and guard talk through.
func socketID(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return 0, errors.New("it is not a socket")
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return 0, err
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return 0, err
	}
	if domain != unix.AF_UNIX || kind != unix.SOCK_SEQPACKET {
		return 0, errors.New("it is another kind of socket")
	}
	return st.Ino, nil
}

// IsGuard reports whether this process was started as a guard: an environment variable says so, and file 3 is the very socket that the variable names. A
// variable that has leaked into another process is therefore ignored.
func IsGuard() bool {
	_, ok := readProof()
	return ok
}

// Main is the whole life of a guard. It does not return. In a process that is not a guard it says so and exits with code 2.
func Main(h Hooks) {
	runtime.LockOSThread() // one thread does everything; its priority is raised
	os.Exit(run(h))
}

// run returns the exit code.
func run(h Hooks) int {
	proof, ok := readProof()
	if !ok {
		say("this process was not started as a guard")
		return exitBroken
	}
	os.Unsetenv(variable) // what the hooks start is no guard
	unix.CloseOnExec(socketFD)
	unix.CloseOnExec(memoryFD)
	unix.CloseOnExec(bellFD)
	if proof.version != version {
		say("the program with process ID %d is of another version than this file, by which its guard was started: restart it", proof.pid)
		return exitBroken
	}
	// It ends when its program does.
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
		unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	w, err := newWard(h, proof.pid)
	if err != nil {
		w = &ward{}
		w.send(message{kind: kindHello, text: err.Error()})
		return exitBroken
	}
	closeInherited()
	prefer()
	w.send(message{kind: kindHello})
	return w.watch()
}

// closeInherited closes files that the program has opened without O_CLOEXEC: a port would stay in use after the program's death. Go opens none so; whatever is open so
// has been inherited.
func closeInherited() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= bellFD {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

// prefer asks the kernel to run this process soon, to keep it in memory, and to kill others first. What is not permitted is done without.
func prefer() {
	write := func(name, value string) { os.WriteFile(name, []byte(value), 0) }
	write("/proc/self/task/"+strconv.Itoa(os.Getpid())+"/comm", "flotilla-guard")
	unix.Setpriority(unix.PRIO_PROCESS, 0, -10)
	write("/proc/self/autogroup", "-10") // where sessions are scheduled as groups, the one above counts within the group only
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		if now, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && now > -900 {
			write("/proc/self/oom_score_adj", "-900")
		}
	}
	// What has been used so far stays in memory, and what is not used is not fetched for it.
	unix.Mlockall(unix.MCL_CURRENT | unix.MCL_ONFAULT)
}

// say writes a sentence to standard error, if that takes it at once: a full pipe must not keep a guard from its work.
func say(format string, args ...any) {
	line := fmt.Sprintf("flotilla guard (process %d): %s\n", os.Getpid(), fmt.Sprintf(format, args...))
	if len(line) > 512 { // what a pipe takes in one piece, by POSIX
		line = line[:508] + "...\n"
	}
	fds := []unix.PollFd{{Fd: 2, Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds, 0); err == nil && n == 1 && fds[0].Revents&unix.POLLOUT != 0 {
		io.WriteString(os.Stderr, line)
	}
}

// ward is what a guard watches over, and with what.
type ward struct {
	hooks   Hooks
	page    *page
	pid     int // the program's
	parent  int // pidfd of it; -1: the kernel has none
	herald  int // can be read when it seems to be dying; -1: not to be had
	timer   int
	arrival *arrivals // of addresses; nil: not to be had
	buf     []byte

	estate  estate
	orphan  bool  // the program is dead
	leave   bool  // the program said goodbye
	lapsed  bool  // the deadline has passed
	owing   bool  // addresses have to be removed because of it
	again   int64 // when, after a failure; 0: now
	trouble string
}

func newWard(h Hooks, pid int) (*ward, error) {
	w := &ward{hooks: h, pid: pid, parent: -1, herald: -1, timer: -1, buf: make([]byte, maxMessage+1)}
	var err error
	if w.page, err = mapPage(memoryFD); err != nil {
		return nil, err
	}
	if w.page.magic.Load() != pageMagic {
		return nil, errors.New("the memory it was given is not the program's")
	}
	if w.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("a timer: %w", err)
	}
	if w.hooks.Remove == nil {
		r, err := newRemover()
		if err != nil {
			return nil, err
		}
		w.hooks.Remove = r.remove
	}
	if w.arrival, err = newArrivals(); err != nil {
		say("addresses that appear after the deadline will not be seen: %v", err)
	}
	// The process ID may have passed to another process if the program is dead; it has not if the program is the parent afterwards. A program in an outer
	// pid namespace has ID 0 here.
	if os.Getppid() == pid {
		self, _ := os.Readlink("/proc/self")
		if w.parent, err = unix.PidfdOpen(pid, 0); err != nil {
			w.parent = -1
		} else if self == strconv.Itoa(os.Getpid()) { // else /proc is of another pid namespace
			w.herald = w.page.hear()
		}
	}
	if now := os.Getppid(); now != pid && now != 0 {
		w.orphan = true
	}
	return w, nil
}

// watch returns the exit code when there is nothing left to do.
func (w *ward) watch() int {
	for {
		w.receive()
		switch {
		case w.leave:
			return 0
		case w.orphan:
			if !w.hooks.settle(w.estate, say) {
				return 1
			}
			return 0
		}
		deadline := w.page.deadline.Load()
		w.judge(deadline, monotonic())
		next := w.next(deadline)
		w.page.next.Store(next)
		if w.page.deadline.Load() != deadline {
			continue
		}
		w.sleep(next)
	}
}

// judge takes the addresses away if the deadline has passed.
func (w *ward) judge(deadline, now int64) {
	lapsed := len(w.estate.addrs) > 0 && deadline != 0 && now >= deadline
	if lapsed != w.lapsed {
		w.lapsed, w.owing, w.again, w.trouble = lapsed, lapsed, 0, ""
		w.arrival.listen(lapsed) // before they are removed: one that appears in between is seen
	}
	if !w.owing || now < w.again {
		return
	}
	if err := w.hooks.Remove(w.estate.addrs); err != nil {
		if text := err.Error(); text != w.trouble {
			w.trouble = text
			say("the lease has ended and addresses are not removed yet: %v", err)
		}
		w.again = monotonic() + int64(5*time.Millisecond)
		return
	}
	w.owing = false
	w.send(message{kind: kindRemoved})
}

// next returns when to look again.
func (w *ward) next(deadline int64) int64 {
	switch {
	case len(w.estate.addrs) == 0:
		return 0
	case w.owing:
		return w.again
	case w.lapsed || deadline == 0:
		return never
	}
	return deadline
}

// sleep returns at that time, or when something has happened.
func (w *ward) sleep(next int64) {
	var at unix.ItimerSpec // zero: no alarm
	if next != 0 && next != never {
		at.Value = unix.NsecToTimespec(next)
	}
	if err := unix.TimerfdSettime(w.timer, unix.TFD_TIMER_ABSTIME, &at, nil); err != nil {
		say("its timer fails: %v", err)
	}
	fds := []unix.PollFd{
		{Fd: socketFD, Events: unix.POLLIN},
		{Fd: int32(w.timer), Events: unix.POLLIN},
		{Fd: int32(w.parent), Events: unix.POLLIN}, // a negative one is ignored
		{Fd: w.arrival.fd(), Events: unix.POLLIN},
		{Fd: int32(w.herald), Events: unix.POLLIN},
		{Fd: bellFD, Events: unix.POLLIN},
	}
	if _, err := unix.Poll(fds, -1); err != nil {
		return // EINTR
	}
	if fds[5].Revents != 0 {
		var count [8]byte
		unix.Read(bellFD, count[:])
	}
	if fds[4].Revents != 0 {
		unix.Close(w.herald)
		w.herald = -1
		w.expect()
	}
	if fds[2].Revents != 0 {
		w.receive() // it may have said goodbye
		w.orphan = true
	}
	if fds[3].Revents != 0 && w.arrival.any(w.estate.addrs) && w.lapsed {
		w.owing, w.again = true, 0
	}
}

// receive takes all messages that are there.
func (w *ward) receive() {
	for !w.leave {
		n, _, flags, _, err := unix.Recvmsg(socketFD, w.buf, nil, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECONNRESET): // told once by a program that has ended without reading all; its last words come after it
			continue
		case errors.Is(err, syscall.EAGAIN):
			return
		case err != nil || n == 0:
			w.orphan = true
			return
		}
		m, err := parse(w.buf[:n])
		if err == nil && flags&unix.MSG_TRUNC != 0 {
			err = errShort
		}
		if err != nil {
			// The program starts another.
			say("a message of the program is not understood: %v", err)
			os.Exit(exitBroken)
		}
		w.accept(m)
	}
}

// accept does what a message says.
func (w *ward) accept(m message) {
	switch m.kind {
	case kindWatch:
		w.estate.addrs = m.addrs
		w.owing = w.lapsed
		if len(m.addrs) > 0 {
			w.page.next.Store(monotonic()) // before the program relies on it: if this guard stands still from now on, that is seen
		}
	case kindTable:
		w.estate.table = m.text
	case kindWill:
		w.estate.will = m.will
	case kindAsk: // that is all
	case kindBye:
		w.leave = true
		return
	default:
		return
	}
	w.send(message{kind: kindAck, seq: m.seq})
}

// send sends what the program has room for.
func (w *ward) send(m message) {
	unix.Sendto(socketFD, m.marshal(), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
}
