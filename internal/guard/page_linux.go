package guard

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// never is a time that does not come: the guard sleeps until it gets a message.
	never = math.MaxInt64

	pageMagic = 0x666c6f7467756101 // the version in its last byte
)

// page is memory that a program shares with its guard. Times are nanoseconds of CLOCK_MONOTONIC,
// which is one clock for all processes.
//
// The program stores deadline, then loads next. The guard stores next, then loads deadline again
// before it sleeps. Atomic operations have one order, so one of the two sees what the other did.
// The guard cannot sleep through a deadline.
type page struct {
	mem      []byte
	magic    *atomic.Uint64
	deadline *atomic.Int64 // written by the program: when the addresses must be gone; 0: never
	next     *atomic.Int64 // written by the guard: when it looks again; 0: it has no addresses
	robust   *robust       // owned by a thread of the program
}

// newPage returns a page and the file to give to the guard.
func newPage() (*page, *os.File, error) {
	// Kernels before 6.3 do not know MFD_NOEXEC_SEAL; newer ones may demand it.
	fd, err := unix.MemfdCreate("flotilla-guard", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err != nil {
		fd, err = unix.MemfdCreate("flotilla-guard", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("memory to share with the guard: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:flotilla-guard")
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("memory to share with the guard: %w", err)
	}
	// A process that touches a page beyond the end of the file is killed.
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("memory to share with the guard: %w", err)
	}
	p, err := mapPage(fd)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	p.magic.Store(pageMagic)
	return p, f, nil
}

// newBell returns a file that wakes the guard when the deadline moves to an earlier time. The
// program rings it at once and without a lock, because it may be stopped a moment later.
func newBell() (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("an eventfd to wake the guard: %w", err)
	}
	return os.NewFile(uintptr(fd), "eventfd:flotilla-guard"), nil
}

// ring rings the bell with that file descriptor.
func ring(bell int) { unix.Write(bell, binary.NativeEndian.AppendUint64(nil, 1)) }

// mapPage maps the page in a file.
func mapPage(fd int) (*page, error) {
	mem, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the memory of program and guard: %w", err)
	}
	// They are far enough apart not to share a cache line.
	return &page{
		mem:      mem,
		magic:    (*atomic.Uint64)(unsafe.Pointer(&mem[0])),
		deadline: (*atomic.Int64)(unsafe.Pointer(&mem[128])),
		next:     (*atomic.Int64)(unsafe.Pointer(&mem[256])),
		robust:   (*robust)(unsafe.Pointer(&mem[384])),
	}, nil
}

func (p *page) unmap() error { return unix.Munmap(p.mem) }

// monotonic reads CLOCK_MONOTONIC.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return never // cannot happen; if it does, every deadline has passed
	}
	return ts.Nano()
}

// deadlineAt converts t to CLOCK_MONOTONIC. It reads that clock first, so a pause between the two
// readings makes the result earlier than t, never later.
func deadlineAt(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	now := monotonic()
	left := int64(time.Until(t))
	if left > never-1-now {
		return never - 1
	}
	return max(now+left, 1)
}
