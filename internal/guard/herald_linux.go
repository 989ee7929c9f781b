package guard

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process that dies gives its memory back before its files are closed: with a gigabyte of it, the end of the socket is seen a tenth of a second late. But before the
// memory goes, the kernel walks the list of robust futexes of each thread, marks those that the thread owns and wakes who waits for them
// (Documentation/locking/robust-futexes.rst). So one thread of the program owns such a futex in the shared page, and does nothing else. What
// wakes the guard is a hint only: it then looks whether every thread is ending, after which none can enter the kernel any more, to add an address say.

const (
	futexWaiters   = 1 << 31 // FUTEX_WAITERS: wake somebody when the owner dies
	futexOwnerDied = 1 << 30 // FUTEX_OWNER_DIED
	futexWait      = 0       // FUTEX_WAIT, between processes

	flagExiting = 4 // PF_EXITING of a task: it runs nothing but its own end

	deathTime = time.Second // from the herald's death to that of all threads; if it takes longer, the socket tells
)

// robust is the kernel's struct robust_list_head with a list of one, and the futex.
type robust struct {
	first   uintptr
	offset  uintptr // from an entry of the list to its futex
	pending uintptr
	entry   uintptr // the list's: the next one, which is the head
	word    atomic.Uint32
}

// herald starts the thread whose death announces the program's, and returns what ends it. Where that is not permitted there is none.
func (p *page) herald() (withdraw func()) {
	ready, stop, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		r := p.robust
		var old, size uintptr // the C library's
		_, _, errno := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST, 0, uintptr(unsafe.Pointer(&old)), uintptr(unsafe.Pointer(&size)))
		if errno == 0 {
			r.first, r.entry = uintptr(unsafe.Pointer(&r.entry)), uintptr(unsafe.Pointer(&r.first))
			r.offset = unsafe.Offsetof(r.word) - unsafe.Offsetof(r.entry)
			r.word.Store(uint32(unix.Gettid()) | futexWaiters)
			_, _, errno = unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, uintptr(unsafe.Pointer(&r.first)), unsafe.Offsetof(r.entry), 0)
		}
		if errno != 0 {
			r.word.Store(0)
			close(ready)
			return
		}
		close(ready)
		<-stop
		unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, old, unsafe.Offsetof(r.entry), 0)
		r.word.Store(0)
	}()
	<-ready
	return func() {
		close(stop)
		<-done
	}
}

// hear returns a file that can be read when the herald has died; -1 if that is not to be had.
func (p *page) hear() int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1
	}
	go func() {
		runtime.LockOSThread()
		for {
			word := p.robust.word.Load()
			switch {
			case word == 0: // there is none
				return
			case word&futexOwnerDied != 0:
				unix.Write(fd, []byte{1, 1, 1, 1, 1, 1, 1, 1})
				return
			}
			unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&p.robust.word)), futexWait, uintptr(word), 0, 0, 0)
		}
	}()
	return fd
}

// expect is called when the herald has died. It returns when the program is known to be dead, or it is not clear.
func (w *ward) expect() {
	pause := unix.NsecToTimespec(int64(200 * time.Microsecond))
	for end := time.Now().Add(deathTime); time.Now().Before(end); {
		ending := w.ending()
		w.receive() // it may have said goodbye
		if w.leave || w.orphan {
			return
		}
		// The process ID was the program's if the pidfd is silent still.
		fds := []unix.PollFd{{Fd: int32(w.parent), Events: unix.POLLIN}, {Fd: socketFD, Events: unix.POLLIN}}
		if ending {
			pause = unix.Timespec{}
		}
		if n, err := unix.Ppoll(fds, &pause, nil); err == nil && n > 0 && fds[0].Revents != 0 {
			return // as sleep will see
		}
		if ending {
			w.orphan = true
			return
		}
	}
}

// ending reports whether all threads of the program are ending.
func (w *ward) ending() bool {
	dir := "/proc/" + strconv.Itoa(w.pid) + "/task"
	tasks, err := os.ReadDir(dir)
	if err != nil || len(tasks) == 0 {
		return false
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(dir + "/" + task.Name() + "/stat")
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue // it has ended
			}
			return false
		}
		// The name in parentheses may have any character; then come state, ppid, pgrp, session, tty_nr, tpgid, flags.
		_, rest, _ := strings.Cut(string(stat[max(0, strings.LastIndexByte(string(stat), ')')):]), " ")
		fields := strings.Fields(rest)
		if len(fields) < 7 {
			return false
		}
		flags, err := strconv.ParseUint(fields[6], 10, 64)
		if err != nil || flags&flagExiting == 0 {
			return false
		}
	}
	return true
}
