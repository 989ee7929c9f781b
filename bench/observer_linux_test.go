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

// observerVariable is the environment variable that tells an observer's process the processor.
const observerVariable = "BENCH_OBSERVER"

// survivable is the pause of its process that a lease of Turbo survives at most.
func survivable() time.Duration { return 3 * timing.Of(90*time.Millisecond).Lease / 5 }

const (
	// noticeable is longer than any turn of the thief that BenchmarkStolen observes.
	noticeable = 20 * time.Millisecond

	// aftermath is how long after the end of a pause nodes still find that it cost them a lease.
	aftermath = 300 * time.Millisecond
)

// pause is a time in which the observer did not run.
type pause struct {
	end    time.Time
	length time.Duration
}

// deadly counts the pauses that no lease survives, and tells the longest.
func deadly(all []pause) (count int, longest time.Duration) {
	for _, p := range all {
		longest = max(longest, p.length)
		if p.length > survivable() {
			count++
		}
	}
	return count, longest
}

// explained says whether the pauses that ended shortly before t are together more than a lease
// survives.
func explained(t time.Time, all []pause) bool {
	var sum time.Duration
	for _, p := range all {
		if p.end.After(t.Add(-aftermath)) && p.end.Add(-p.length).Before(t) {
			sum += p.length
		}
	}
	return sum > survivable()
}

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
		fmt.Sprintf("%s=%d", observerVariable, cpu))
	o.cmd.Stdout, o.cmd.Stderr = o.out, os.Stderr
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return o, o.cmd.Start()
}

// stop ends the observer. It returns the noticeable pauses.
func (o *observer) stop() (all []pause, err error) {
	o.in.Close()
	if err := o.cmd.Wait(); err != nil {
		return nil, err
	}
	for line := range strings.Lines(o.out.String()) {
		var end, length int64
		if _, err := fmt.Sscan(line, &end, &length); err != nil {
			return nil, err
		}
		all = append(all, pause{time.Unix(0, end), time.Duration(length)})
	}
	return all, nil
}

// runObserver is an observer's process. It ends with its standard input.
func runObserver(context.Context) error {
	var cpu int
	if _, err := fmt.Sscan(os.Getenv(observerVariable), &cpu); err != nil {
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
	for last := time.Now(); ; {
		napUntil(last.Add(2 * time.Millisecond))
		now := time.Now()
		length := now.Sub(last)
		if last = now; length > noticeable {
			fmt.Println(now.UnixNano(), int64(length))
		}
		ended := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
		if n, err := unix.Poll(ended, 0); err == nil && n > 0 {
			return nil
		}
	}
}
