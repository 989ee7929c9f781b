package lease

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// nice is the priority that a process with a tight lease asks for, as of nice(1).
const nice = -10

// raisePriority asks the kernel to run this process soon when others want the processor too. All
// threads of the process are raised, and those that it starts later. One thread would not be
// enough: any thread of a Go program may be the one that sees the time or the network, and a
// goroutine that is tied to a thread waits for it.
//
// It is no real-time priority. A Go program has threads that spin or collect garbage, and at that
// priority they would keep each other from running.
func raisePriority() error {
	// Where the kernel schedules sessions as groups, a thread's priority counts only within its
	// group. A session that others share is left as it is.
	if session, err := unix.Getsid(0); err == nil && session == os.Getpid() {
		_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0) // not all kernels have it
	}
	for raised := true; raised; { // meanwhile a thread may have started another one
		raised = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("the threads of this process: %w", err)
		}
		for _, t := range tasks {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				return fmt.Errorf("the threads of this process: %w", err)
			}
			if now, err := niceOf(id); err != nil || now <= nice {
				continue // it has ended, or has that priority
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err == nil {
				raised = true
			} else if !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("raise the priority of a thread: %w", err)
			}
		}
	}
	return nil
}

// niceOf returns the priority of a thread.
func niceOf(thread int) (int, error) {
	const zero = 20 // the system call returns no negative numbers
	n, err := unix.Getpriority(unix.PRIO_PROCESS, thread)
	return zero - n, err
}
