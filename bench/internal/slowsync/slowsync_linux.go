// Package slowsync makes the disk of a process slow. The process traps its own fsync and fdatasync
// in the kernel (seccomp). Another process lets each of them wait before it runs. So all that the
// slow process runs has the same disk, and nothing of it knows.
package slowsync

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// waiters is how many syncs can wait at the same time.
const waiters = 32

// seccompNotif is the kernel's struct seccomp_notif.
type seccompNotif struct {
	id    uint64
	pid   uint32
	flags uint32
	data  struct {
		nr                 int32
		arch               uint32
		instructionPointer uint64
		args               [6]uint64
	}
}

// seccompResp is the kernel's struct seccomp_notif_resp.
type seccompResp struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// Trap traps the syncs of this process and of its children, until they end. They wait until another
// process attaches to the number that it returns. A process can do this once.
func Trap() (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Without it only root may have filters. The other threads get it together with the filter.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("no new privileges: %w", err)
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.SYS_FSYNC},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_FDATASYNC},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, fmt.Errorf("seccomp: %w", errno)
	}
	return int(fd), nil
}

// Disk lets the syncs of another process wait.
type Disk struct {
	listener *os.File
	delay    atomic.Int64 // nanoseconds
	syncs    atomic.Int64

	mu  sync.Mutex
	err error // the first that a waiter had
}

// Attach returns the disk of a child whose Trap has returned fd. It lets each sync wait for as long
// as SetDelay says, at first not at all. It ends when the child does.
func Attach(pid, fd int) (*Disk, error) {
	child, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(child)
	own, err := unix.PidfdGetfd(child, fd, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_getfd: %w", err)
	}
	d := &Disk{listener: os.NewFile(uintptr(own), "seccomp listener")}
	var wg sync.WaitGroup
	for range waiters {
		wg.Go(func() {
			if err := d.wait(); err != nil {
				d.mu.Lock()
				defer d.mu.Unlock()
				if d.err == nil {
					d.err = err
				}
			}
		})
	}
	go func() {
		wg.Wait()
		d.listener.Close()
	}()
	return d, nil
}

// SetDelay sets how long each sync waits before it runs.
func (d *Disk) SetDelay(delay time.Duration) { d.delay.Store(int64(delay)) }

// Syncs returns how many syncs there have been.
func (d *Disk) Syncs() int64 { return d.syncs.Load() }

// Err returns the first error, if any.
func (d *Disk) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// wait serves one sync after another until the process has ended.
func (d *Disk) wait() error {
	runtime.LockOSThread() // never unlocked: the thread ends with its timer slack
	// A timer of Go can be a millisecond late, one of the kernel 50 µs.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("timer slack: %w", err)
	}
	fd := d.listener.Fd()
	for {
		var n seccompNotif
		if err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); errors.Is(err, unix.ENOENT) {
			if gone(fd) {
				return nil
			}
			continue // the caller was interrupted
		} else if errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return fmt.Errorf("receiving a sync: %w", err)
		}
		d.syncs.Add(1)
		if delay := d.delay.Load(); delay > 0 {
			left := unix.NsecToTimespec(delay)
			for errors.Is(unix.Nanosleep(&left, &left), unix.EINTR) {
			}
		}
		r := seccompResp{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("answering a sync: %w", err)
		}
	}
}

// gone reports whether no process has the filter any more.
func gone(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&unix.POLLHUP != 0
}

func ioctl(fd, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
