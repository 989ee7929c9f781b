package guard

import (
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Main is the whole life of a guard. It does not return. In a process that is not a guard it says
// so and exits with code 2.
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
	os.Unsetenv(variable) // a process that a hook starts is not a guard
	unix.CloseOnExec(socketFD)
	unix.CloseOnExec(memoryFD)
	unix.CloseOnExec(bellFD)
	if proof.version != version {
		say("the program with process ID %d is of another version than the file from which its guard was started: restart it",
			proof.pid)
		return exitBroken
	}
	// The guard ends when its program does, not by these signals.
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGABRT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGALRM, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	w, err := newWatcher(h, proof.pid)
	if err != nil {
		send(message{kind: kindHello, text: err.Error()})
		return exitBroken
	}
	closeInherited()
	raisePriority()
	send(message{kind: kindHello})
	return w.run()
}

// closeInherited closes files that the program opened without O_CLOEXEC. A port among them would
// stay in use after the program's death. Go itself opens no file without O_CLOEXEC, so all such
// files are inherited.
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

// raisePriority asks the kernel to run this process soon, to keep it in memory, and to kill other
// processes first. It skips what is not permitted.
func raisePriority() {
	write := func(name, value string) { os.WriteFile(name, []byte(value), 0) }
	write("/proc/self/task/"+strconv.Itoa(os.Getpid())+"/comm", "flotilla-guard")
	unix.Setpriority(unix.PRIO_PROCESS, 0, -10)
	// Where the kernel schedules sessions as groups, the priority above counts only within the
	// group.
	write("/proc/self/autogroup", "-10")
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		if now, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && now > -900 {
			write("/proc/self/oom_score_adj", "-900")
		}
	}
	// Pages that have been used so far stay in memory. Others are not loaded for it.
	unix.Mlockall(unix.MCL_CURRENT | unix.MCL_ONFAULT)
}
