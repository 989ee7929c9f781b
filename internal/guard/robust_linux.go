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

// A dying process returns its memory before its files are closed. With a gigabyte of memory the end
// of the socket therefore comes a tenth of a second late. Before that, however, the kernel walks
// each thread's list of robust futexes, marks those that the thread owns, and wakes the waiters
// (Documentation/locking/robust-futexes.rst). So one thread of the program owns such a futex in the
// shared page and does nothing else. The wake-up is only a hint: the guard then checks that every
// thread is exiting. After that no thread can enter the kernel any more, to add an address for
// example.

const (
	futexWaiters   = 1 << 31 // FUTEX_WAITERS: wake a waiter when the owner dies
	futexOwnerDied = 1 << 30 // FUTEX_OWNER_DIED
	futexWait      = 0       // FUTEX_WAIT, between processes

	flagExiting = 4 // PF_EXITING of a task: it runs nothing but its own end

	// deathTime is how long the guard waits, after the owner's death, until all threads are
	// exiting. After that time it relies on the socket.
	deathTime = time.Second
)

// robust is the kernel's struct robust_list_head with a list of one entry, and the futex.
type robust struct {
	first   uintptr
	offset  uintptr // from an entry of the list to its futex
	pending uintptr
	entry   uintptr // of the list: the next one, which is the head
	word    atomic.Uint32
}

// own starts the thread that owns the futex, and returns a function that ends it. Where the kernel
// does not permit robust futexes there is no owner.
func (r *robust) own() (stop func()) {
	ready, end, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var old, size uintptr // the C library's
		_, _, errno := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST,
			0, uintptr(unsafe.Pointer(&old)), uintptr(unsafe.Pointer(&size)))
		if errno == 0 {
			r.first, r.entry = uintptr(unsafe.Pointer(&r.entry)), uintptr(unsafe.Pointer(&r.first))
			r.offset = unsafe.Offsetof(r.word) - unsafe.Offsetof(r.entry)
			r.word.Store(uint32(unix.Gettid()) | futexWaiters)
			_, _, errno = unix.RawSyscall(unix.SYS_SET_ROBUST_LIST,
				uintptr(unsafe.Pointer(&r.first)), unsafe.Offsetof(r.entry), 0)
		}
		if errno != 0 {
			r.word.Store(0)
			close(ready)
			return
		}
		close(ready)
		<-end
		unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, old, unsafe.Offsetof(r.entry), 0)
		r.word.Store(0)
	}()
	<-ready
	return func() {
		close(end)
		<-done
	}
}

// observe returns a file that becomes readable when the owner has died; -1 if there is none.
func (r *robust) observe() int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1
	}
	go func() {
		runtime.LockOSThread()
		for {
			word := r.word.Load()
			switch {
			case word == 0: // no owner
				return
			case word&futexOwnerDied != 0:
				unix.Write(fd, []byte{1, 1, 1, 1, 1, 1, 1, 1})
				return
			}
			unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&r.word)), futexWait, uintptr(word), 0, 0, 0)
		}
	}()
	return fd
}

// exiting reports whether all threads of a process are exiting.
func exiting(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
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
		// The name in parentheses may contain any character. After it come state, ppid, pgrp,
		// session, tty_nr, tpgid and flags.
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
