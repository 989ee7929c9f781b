package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	helloTime = 10 * time.Second // until a guard is ready; it initializes all packages
	ackTime   = 2 * time.Second  // until it acknowledges a message
	closeTime = 2 * time.Second  // until it has ended
)

// launcher starts guards. All of them get the same files.
type launcher struct {
	memory *os.File // the page
	bell   *os.File // an eventfd

	// Guard.mu guards these.
	netns  *os.File // the network namespace of the next guard
	former *os.File // that of earlier ones, which a start under way may still use; nil: none
	duty   Duty     // of the next guard
}

func (l *launcher) close() {
	l.memory.Close()
	l.bell.Close()
	l.netns.Close()
	l.former.Close() // an error if it is nil
}

// process is one running guard.
type process struct {
	cmd   *exec.Cmd
	conn  *net.UnixConn
	hello chan string   // its first message
	ended chan struct{} // closed when it has exited and been waited for
	duty  Duty

	onRemoved func() // called when it has removed the addresses

	mu      sync.Mutex
	last    uint32
	waiting map[uint32]chan struct{}
}

// start starts a guard and returns when it is ready. The caller has a copy of the launcher.
func (l launcher) start(ctx context.Context, onRemoved func()) (*process, error) {
	conn, theirs, err := newSocketPair()
	if err != nil {
		return nil, fmt.Errorf("the guard's socket: %w", err)
	}
	cmd, err := l.exec(theirs)
	theirs.Close()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	p := &process{
		cmd: cmd, conn: conn, onRemoved: onRemoved, duty: l.duty,
		hello: make(chan string, 1), ended: make(chan struct{}), waiting: make(map[uint32]chan struct{}),
	}
	go p.read()
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	select {
	case trouble := <-p.hello:
		if trouble == "" {
			return p, nil
		}
		err = fmt.Errorf("the guard cannot work: %s", trouble)
	case <-p.ended:
		err = fmt.Errorf("the guard ended before it was ready (%s); "+
			"does a package that is initialized before it demand something?", p.result())
	case <-ctx.Done():
		err = fmt.Errorf("the guard is not ready: %w", ctx.Err())
	}
	p.kill()
	return nil, err
}

// newSocketPair returns the program's end and the guard's end. Other children inherit neither.
func newSocketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "guard"), os.NewFile(uintptr(fds[1]), "program")
	defer ours.Close()
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 3*maxMessage); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// exec starts the process in the right network namespace.
func (l launcher) exec(socket *os.File) (cmd *exec.Cmd, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		here, err2 := threadNamespace()
		if err2 != nil {
			err = err2
			return
		}
		defer here.Close()
		if sameFile(here, l.netns) {
			defer runtime.UnlockOSThread()
		} else if err = unix.Setns(int(l.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			// The goroutine does not unlock its thread, so the thread ends with it.
			err = fmt.Errorf("enter its network namespace: %w", err)
			return
		}
		cmd, err = l.execHere(socket)
	}()
	<-done
	return cmd, err
}

// threadNamespace returns the network namespace of the calling thread.
func threadNamespace() (*os.File, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("the network namespace of this thread: %w", err)
	}
	return f, nil
}

func sameFile(a, b *os.File) bool {
	infoA, errA := a.Stat()
	infoB, errB := b.Stat()
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// execHere starts the process in the network namespace of this thread.
func (l launcher) execHere(socket *os.File) (*exec.Cmd, error) {
	id, err := socketID(int(socket.Fd()))
	if err != nil {
		return nil, err
	}
	name := "program"
	if len(os.Args) > 0 && os.Args[0] != "" {
		name = filepath.Base(os.Args[0])
	}
	// This name leads to the running binary even if another file has replaced it on disk.
	path := "/proc/self/exe"
	for {
		cmd := exec.Command(path)
		cmd.Args = []string{name + ": flotilla guard"}
		cmd.Dir = "/" // keeps no file system busy
		cmd.Env = environment(os.Getpid(), id, l.duty)
		cmd.ExtraFiles = []*os.File{socket, l.memory, l.bell}
		if os.Stderr != nil {
			cmd.Stderr = os.Stderr
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err = cmd.Start(); err == nil {
			return cmd, nil
		}
		again, err2 := os.Executable()
		if err2 != nil || again == path {
			return nil, err
		}
		path = again
	}
}

// environment returns a guard's environment. It keeps the guard to one running thread and little
// memory.
func environment(pid int, socket uint64, d Duty) []string {
	env := []string{
		fmt.Sprintf("%s=%d:%d:%d:%s", variable, version, pid, socket, d),
		"GOMAXPROCS=1", "GOGC=25", "GOMEMLIMIT=16MiB",
	}
	for _, name := range []string{"GODEBUG", "LD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// read takes the guard's messages until there are no more, and then waits for its end.
func (p *process) read() {
	defer close(p.ended)
	buf := make([]byte, headerSize+maxText)
	for {
		n, err := p.conn.Read(buf)
		if err != nil {
			break
		}
		m, err := parse(buf[:n])
		if err != nil {
			m = message{kind: kindHello, text: err.Error()}
		}
		switch m.kind {
		case kindHello:
			select {
			case p.hello <- m.text:
			default:
			}
		case kindAck:
			p.mu.Lock()
			if done := p.waiting[m.seq]; done != nil {
				close(done)
				delete(p.waiting, m.seq)
			}
			p.mu.Unlock()
		case kindRemoved:
			p.onRemoved()
		}
	}
	// Without its socket it is of no use.
	p.cmd.Process.Kill()
	p.conn.Close()
	p.cmd.Wait()
}

// send sends a message without waiting for an acknowledgement.
func (p *process) send(m message) error {
	p.conn.SetWriteDeadline(time.Now().Add(ackTime))
	_, err := p.conn.Write(m.marshal())
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.cmd.Process.Kill()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDown, err)
	}
	return nil
}

// answer is an acknowledgement that is to come.
type answer struct {
	p    *process
	seq  uint32
	done chan struct{}
}

// ask sends a message and returns its acknowledgement, to be waited for. Only one call of ask may
// run at a time.
func (p *process) ask(m message) (*answer, error) {
	p.mu.Lock()
	p.last++
	m.seq = p.last
	a := &answer{p: p, seq: m.seq, done: make(chan struct{})}
	p.waiting[m.seq] = a.done
	p.mu.Unlock()
	if err := p.send(m); err != nil {
		a.forget()
		return nil, err
	}
	return a, nil
}

func (a *answer) forget() {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	delete(a.p.waiting, a.seq)
}

// wait returns when the message is acknowledged. It kills a guard that does not answer, because
// such a guard would not do anything else either.
func (a *answer) wait(ctx context.Context) error {
	defer a.forget()
	timer := time.NewTimer(ackTime)
	defer timer.Stop()
	select {
	case <-a.done:
		return nil
	case <-a.p.ended:
		return ErrDown
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		a.p.cmd.Process.Kill()
		return fmt.Errorf("%w: it does not answer", ErrDown)
	}
}

// close asks the guard to exit, and waits for it. It kills a guard that does not exit.
func (p *process) close() {
	p.send(message{kind: kindBye})
	select {
	case <-p.ended:
	case <-time.After(closeTime):
		p.kill()
	}
}

// kill kills the guard and waits for it, at most closeTime.
func (p *process) kill() {
	p.cmd.Process.Kill()
	select {
	case <-p.ended:
	case <-time.After(closeTime):
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// result says how the guard has ended.
func (p *process) result() string {
	select {
	case <-p.ended:
	default:
		return "not yet"
	}
	if p.cmd.ProcessState == nil {
		return "unknown: something else has waited for it"
	}
	return strings.TrimSpace(p.cmd.ProcessState.String())
}
