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
	helloTime = 10 * time.Second // until a guard is ready; other packages of the program are initialized in it too
	ackTime   = 2 * time.Second  // until it acknowledges a message
)

// cradle is what guards are started with.
type cradle struct {
	memory *os.File // the page
	bell   *os.File // an eventfd
	netns  *os.File // the network namespace
}

func (c *cradle) close() {
	c.memory.Close()
	c.bell.Close()
	if c.netns != nil {
		c.netns.Close()
	}
}

// process is one guard that runs.
type process struct {
	cmd   *exec.Cmd
	conn  *net.UnixConn
	hello chan string   // its first message
	ended chan struct{} // closed when it has exited and been waited for

	removed func() // called when it has removed the addresses

	mu      sync.Mutex
	last    uint32
	waiting map[uint32]chan struct{}
}

// start starts a guard and returns when it is ready.
func (c *cradle) start(ctx context.Context, removed func()) (*process, error) {
	conn, theirs, err := newSocketPair()
	if err != nil {
		return nil, fmt.Errorf("the guard's socket: %w", err)
	}
	p := &process{
		conn: conn, removed: removed,
		hello: make(chan string, 1), ended: make(chan struct{}), waiting: make(map[uint32]chan struct{}),
	}
	p.cmd, err = c.exec(theirs)
	theirs.Close()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the guard: %w", err)
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
		err = fmt.Errorf("the guard ended before it was ready (%s); does a package that is initialized before it demand something?", p.result())
	case <-ctx.Done():
		err = fmt.Errorf("the guard is not ready: %w", ctx.Err())
	}
	p.end()
	return nil, err
}

// newSocketPair returns the program's end and the guard's. Neither is inherited by other children.
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

// exec starts the process, in the right network namespace.
func (c *cradle) exec(socket *os.File) (cmd *exec.Cmd, err error) {
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
		if sameFile(here, c.netns) {
			defer runtime.UnlockOSThread()
		} else if err = unix.Setns(int(c.netns.Fd()), unix.CLONE_NEWNET); err != nil { // the thread ends with the goroutine, which does not unlock it
			err = fmt.Errorf("enter its network namespace: %w", err)
			return
		}
		cmd, err = c.execHere(socket)
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
func (c *cradle) execHere(socket *os.File) (*exec.Cmd, error) {
	id, err := socketID(int(socket.Fd()))
	if err != nil {
		return nil, err
	}
	name := "program"
	if len(os.Args) > 0 && os.Args[0] != "" {
		name = filepath.Base(os.Args[0])
	}
	// The file of this name is the program's even if another has taken its place on disk.
	path := "/proc/self/exe"
	for {
		cmd := exec.Command(path)
		cmd.Args = []string{name + ": flotilla guard"}
		cmd.Dir = "/" // keeps no file system busy
		cmd.Env = environment(os.Getpid(), id)
		cmd.ExtraFiles = []*os.File{socket, c.memory, c.bell}
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

// environment returns a guard's. It has one thread at work, and little memory.
func environment(pid int, socket uint64) []string {
	env := []string{
		fmt.Sprintf("%s=%d:%d:%d", variable, version, pid, socket),
		"GOMAXPROCS=1", "GOGC=25", "GOMEMLIMIT=16MiB",
	}
	for _, name := range []string{"GODEBUG", "LD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// read takes the guard's messages until there are no more, and waits for its end.
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
			p.removed()
		}
	}
	// Without its socket it is of no use.
	p.cmd.Process.Kill()
	p.conn.Close()
	p.cmd.Wait()
}

// send sends m, which nobody acknowledges.
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

// answer is one that is waited for.
type answer struct {
	p    *process
	seq  uint32
	done chan struct{}
}

// ask sends m and returns what its answer is waited for with. Messages are asked one after another.
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

// wait returns when the message is acknowledged. A guard that does not answer is killed: it would not do anything else either.
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

// bye ends the guard as it should end, and waits.
func (p *process) bye() {
	p.send(message{kind: kindBye})
	select {
	case <-p.ended:
	case <-time.After(closeTime):
		p.end()
	}
}

// end kills the guard and waits, though not for one that the kernel does not let go.
func (p *process) end() {
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
