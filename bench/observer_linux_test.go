package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/bench/internal/proc"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// observerVariable is the environment variable that tells an observer's process the processor, and
// the pause that it counts.
const observerVariable = "BENCH_OBSERVER"

// survivable is the pause of its process that a lease of Turbo survives at most.
func survivable() time.Duration { return 3 * timing.Of(90*time.Millisecond).Lease / 5 }

// observer is a process whose one thread wants to run every two milliseconds, on the processor of
// the nodes. Its priority is right below that of a thief with one. So its pauses are those of the
// thief and of the machine: no program without a higher priority runs any sooner.
type observer struct {
	cmd *exec.Cmd
	in  io.Closer
	out *strings.Builder
}

func startObserver(cpu int) (*observer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o := &observer{cmd: exec.Command(self), out: new(strings.Builder)}
	o.cmd.Env = append(os.Environ(), proc.RoleVariable+"=observer",
		fmt.Sprintf("%s=%d %d", observerVariable, cpu, int64(survivable())))
	o.cmd.Stdout, o.cmd.Stderr = o.out, os.Stderr
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return o, o.cmd.Start()
}

// stop ends the observer. It returns how many pauses were longer than the lease survives, and how
// long the longest was.
func (o *observer) stop() (count int, longest time.Duration, err error) {
	o.in.Close()
	if err := o.cmd.Wait(); err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(o.out.String(), &count, (*int64)(&longest))
	return count, longest, err
}

// runObserver is an observer's process. It ends with its standard input.
func runObserver(context.Context) error {
	var cpu int
	var limit time.Duration
	if _, err := fmt.Sscan(os.Getenv(observerVariable), &cpu, (*int64)(&limit)); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := pinProcess(os.Getpid(), cpu); err != nil {
		return err
	}
	priority := int32(thiefPriority - 1)
	if _, _, e := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO, uintptr(unsafe.Pointer(&priority))); e != 0 {
		return fmt.Errorf("an observer must be privileged: %w", e)
	}
	count, longest := 0, time.Duration(0)
	for last := time.Now(); ; {
		napUntil(last.Add(2 * time.Millisecond))
		now := time.Now()
		pause := now.Sub(last)
		if last, longest = now, max(longest, pause); pause > limit {
			count++
		}
		ended := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
		if n, err := unix.Poll(ended, 0); err == nil && n > 0 {
			fmt.Println(count, int64(longest))
			return nil
		}
	}
}
