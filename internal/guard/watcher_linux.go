package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	retryPause     = 5 * time.Millisecond   // between attempts to remove addresses after the deadline
	rehearsalDelay = 200 * time.Millisecond // from the first death notice to its rehearsal

	exitBroken = 2 // the exit code of a guard that cannot work
)

// watcher watches the program, in the guard's process.
type watcher struct {
	hooks   Hooks
	page    *page
	pid     int // the program's
	parent  int // pidfd of the program; -1: the kernel has none
	dying   int // readable when the program seems to be dying; -1: not available
	timer   int
	arrival *arrivals // of addresses; nil: not available
	buf     []byte

	set       guardedSet
	rehearsed bool // the sending of a death notice, or that is about to be

	dead     bool   // the program is dead
	goodbye  bool   // the program has closed the guard
	expired  bool   // the deadline has passed
	pending  bool   // addresses have to be removed because of it
	retryAt  int64  // when to try again after a failure; 0: now
	reported string // the last error of a removal
}

func newWatcher(h Hooks, pid int) (*watcher, error) {
	w := &watcher{hooks: h, pid: pid, parent: -1, dying: -1, timer: -1, buf: make([]byte, maxMessage+1)}
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
	if w.hooks.Prepare != nil {
		if err := w.hooks.Prepare(); err != nil {
			return nil, err
		}
	}
	if w.hooks.Remove != nil {
		if w.arrival, err = newArrivals(); err != nil {
			say("addresses that appear after the deadline will not be seen: %v", err)
		}
	}
	// If the program is dead another process may have its ID by now. That is not so if the program
	// is still the parent afterwards. A program in an outer pid namespace has the ID 0 here.
	if os.Getppid() == pid {
		self, _ := os.Readlink("/proc/self")
		if w.parent, err = unix.PidfdOpen(pid, 0); err != nil {
			w.parent = -1
		} else if self == strconv.Itoa(os.Getpid()) { // else /proc is of another pid namespace
			w.dying = w.page.robust.observe()
		}
	}
	if now := os.Getppid(); now != pid && now != 0 {
		w.dead = true
	}
	return w, nil
}

// run returns the exit code when there is nothing left to do.
func (w *watcher) run() int {
	for {
		w.receive()
		switch {
		case w.goodbye:
			return 0
		case w.dead:
			if !w.hooks.cleanUp(w.set, say) {
				return 1
			}
			return 0
		}
		deadline := w.page.deadline.Load()
		w.evaluate(deadline, monotonic())
		next := w.next(deadline)
		w.page.next.Store(next)
		if w.page.deadline.Load() != deadline {
			continue
		}
		w.sleep(next)
	}
}

// evaluate removes the addresses if the deadline has passed.
func (w *watcher) evaluate(deadline, now int64) {
	expired := len(w.set.addrs) > 0 && deadline != 0 && now >= deadline
	if expired != w.expired {
		w.expired, w.pending, w.retryAt, w.reported = expired, expired, 0, ""
		w.arrival.listen(expired) // before the removal, so that an address in between is seen
	}
	if !w.pending || now < w.retryAt {
		return
	}
	if err := w.hooks.Remove(w.set.addrs); err != nil {
		if text := err.Error(); text != w.reported {
			w.reported = text
			say("the lease has ended and addresses are not removed yet: %v", err)
		}
		w.retryAt = monotonic() + int64(retryPause)
		return
	}
	w.pending = false
	send(message{kind: kindRemoved})
}

// next returns when to look again.
func (w *watcher) next(deadline int64) int64 {
	switch {
	case len(w.set.addrs) == 0:
		return 0
	case w.pending:
		return w.retryAt
	case w.expired || deadline == 0:
		return never
	}
	return deadline
}

// sleep returns at the time next, or earlier when something has happened.
func (w *watcher) sleep(next int64) {
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
		{Fd: int32(w.dying), Events: unix.POLLIN},
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
		unix.Close(w.dying)
		w.dying = -1
		w.confirmDeath()
	}
	if fds[2].Revents != 0 {
		w.receive() // the program may have closed the guard
		w.dead = true
	}
	if fds[3].Revents != 0 && w.arrival.any(w.set.addrs) && w.expired {
		w.pending, w.retryAt = true, 0
	}
}

// confirmDeath is called when the program seems to be dying. It returns when the program is known
// to be dead, or after deathTime.
func (w *watcher) confirmDeath() {
	pause := unix.NsecToTimespec(int64(200 * time.Microsecond))
	for end := time.Now().Add(deathTime); time.Now().Before(end); {
		allExiting := exiting(w.pid)
		w.receive() // the program may have closed the guard
		if w.goodbye || w.dead {
			return
		}
		// The process ID was still the program's if the pidfd has not become readable.
		fds := []unix.PollFd{{Fd: int32(w.parent), Events: unix.POLLIN}, {Fd: socketFD, Events: unix.POLLIN}}
		if allExiting {
			pause = unix.Timespec{}
		}
		if n, err := unix.Ppoll(fds, &pause, nil); err == nil && n > 0 && fds[0].Revents != 0 {
			return // sleep will see it too
		}
		if allExiting {
			w.dead = true
			return
		}
	}
}

// receive takes all messages that have arrived.
func (w *watcher) receive() {
	for !w.goodbye {
		n, _, flags, _, err := unix.Recvmsg(socketFD, w.buf, nil, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECONNRESET):
			// The program ended without reading everything. The kernel reports that once; the
			// program's last messages follow.
			continue
		case errors.Is(err, syscall.EAGAIN):
			return
		case err != nil || n == 0:
			w.dead = true
			return
		}
		m, err := parse(w.buf[:n])
		switch {
		case err != nil:
		case flags&unix.MSG_TRUNC != 0:
			err = errShort
		case len(m.addrs) > 0 && w.hooks.Remove == nil:
			err = errors.New("it has addresses, and this guard cannot remove any")
		}
		if err != nil {
			// The program starts another guard.
			say("a message of the program is not understood: %v", err)
			os.Exit(exitBroken)
		}
		w.accept(m)
	}
}

// accept does what a message says, and acknowledges it.
func (w *watcher) accept(m message) {
	switch m.kind {
	case kindWatch:
		w.set.addrs = m.addrs
		w.pending = w.expired
		if len(m.addrs) > 0 {
			// Before the program relies on it: from now on the program can see that this guard
			// stands still.
			w.page.next.Store(monotonic())
		}
	case kindTable:
		w.set.table = m.text
	case kindNotice:
		w.set.notices = m.notices
		w.rehearse()
	case kindAsk: // the acknowledgement is all
	case kindBye:
		w.goodbye = true
		return
	default:
		return
	}
	send(message{kind: kindAck, seq: m.seq})
}

// rehearse has the sending of a death notice rehearsed once. The program is still busy with what it
// needs the guard for, so that waits a moment.
func (w *watcher) rehearse() {
	if w.rehearsed || w.hooks.Rehearse == nil || len(w.set.notices) == 0 {
		return
	}
	w.rehearsed = true
	notice := w.set.notices[0]
	time.AfterFunc(rehearsalDelay, func() {
		ctx, cancel := context.WithTimeout(context.Background(), attemptTime)
		defer cancel()
		w.hooks.Rehearse(ctx, notice)
	})
}

// send sends a message to the program if the socket has room for it.
func send(m message) {
	unix.Sendto(socketFD, m.marshal(), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
}
