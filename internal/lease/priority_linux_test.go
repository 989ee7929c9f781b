package lease

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// All threads of the process are raised, and also those that start later.
func TestPriority(t *testing.T) {
	before, err := niceOf(0)
	if err != nil {
		t.Fatal(err)
	}
	defer eachThread(t, func(id int) {
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, before); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Error(err)
		}
	})
	if err := raisePriority(); errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		t.Skip("this needs the capability SYS_NICE:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	started, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		close(started)
		<-end
	}()
	<-started
	eachThread(t, func(id int) {
		if now, err := niceOf(id); err == nil && now > nice {
			t.Errorf("a thread has the priority %d", now)
		}
	})
	if err := raisePriority(); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

func eachThread(t *testing.T, f func(id int)) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		f(id)
	}
}
