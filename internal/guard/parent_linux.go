package guard

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	firstPause   = 50 * time.Millisecond // between the second start and the third of a guard that does not live; the second comes at once
	longestPause = 5 * time.Second
	longLife     = 10 * time.Second // of a guard after which its successor is started at once again

	lateTime = 500 * time.Millisecond // a guard that looks so late at the deadline is asked whether it is there

	closeTime = 2 * time.Second
)

// Guard is the guard of this program, as the program sees it. Its methods may be called from several goroutines at once.
type Guard struct {
	log    *slog.Logger
	birth  *cradle
	poke   chan struct{} // the guard may stand still
	cancel context.CancelFunc
	done   chan struct{} // the guard is gone, and no other follows
	mute   func()        // ends the herald

	pageMu sync.RWMutex
	page   *page // nil: closed
	bell   int   // file descriptor

	// mu is held while a message is written, so that messages are sent in the order in which the estate has changed. The socket takes several at once.
	mu       sync.Mutex
	closed   bool
	estate   estate
	proc     *process // the guard that has the estate; nil: there is none
	alive    bool     // proc has acknowledged it
	removals uint64
	changed  chan struct{}
}

// Start starts the guard of this program and returns when it is ready. One that does not come, or not within the context, which bounds nothing else, is tried again
// for as long as it takes: Alive tells. The guard is in the network namespace of the calling thread, and so are those that follow it.
func Start(ctx context.Context, log *slog.Logger) (*Guard, error) {
	if IsGuard() {
		return nil, errors.New("this process is itself a guard: a program must call IsGuard and Main before anything else")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if os.Getpid() == 1 {
		log.Warn("this program is process 1 of its pid namespace: if it is killed, the kernel kills its guard with it, and floating addresses stay " +
			"until their lifetimes end or the network namespace is gone; an init process does not change that, the host's pid namespace does")
	}
	page, memory, err := newPage()
	if err != nil {
		return nil, err
	}
	bell, err := newBell()
	if err != nil {
		page.unmap()
		memory.Close()
		return nil, err
	}
	g := &Guard{
		log: log, page: page, bell: int(bell.Fd()), birth: &cradle{memory: memory, bell: bell}, poke: make(chan struct{}, 1),
		done: make(chan struct{}), mute: page.herald(), changed: make(chan struct{}),
	}
	if g.birth.netns, err = threadNamespace(); err != nil {
		g.release()
		return nil, err
	}
	p, err := g.bear(ctx)
	var life context.Context
	life, g.cancel = context.WithCancel(context.Background())
	go g.supervise(life, p, err)
	return g, nil
}

// bear starts a process and makes it the guard.
func (g *Guard) bear(ctx context.Context) (*process, error) {
	p, err := g.birth.start(ctx, g.removed)
	if err != nil {
		return nil, err
	}
	if err := g.introduce(ctx, p); err != nil {
		p.end()
		g.lost(p)
		return nil, err
	}
	return p, nil
}

// release gives up what guards are started with.
func (g *Guard) release() {
	g.mute()
	g.pageMu.Lock()
	defer g.pageMu.Unlock()
	g.birth.close()
	g.page.unmap()
	g.page = nil
}

// supervise starts guard after guard until life ends. p is the first; nil: it did not come, and err says why.
func (g *Guard) supervise(life context.Context, p *process, err error) {
	defer close(g.done)
	defer g.release()
	var pause time.Duration
	said := ""
	for born := time.Now(); ; {
		if p != nil {
			said = ""
			g.attend(life, p)
			g.lost(p)
		}
		if life.Err() != nil {
			return
		}
		if p != nil {
			g.log.Warn("the guard of floating addresses has died; another is started", "pid", p.pid(), "end", p.result())
		} else if text := err.Error(); text != said {
			said = text
			g.log.Error("no guard of floating addresses could be started; until one is, those of a dead program move when its lease ends, and not at once", "err", err)
		}
		if time.Since(born) > longLife {
			pause = 0
		}
		select {
		case <-life.Done():
			return
		case <-time.After(pause):
		}
		pause = min(max(2*pause, firstPause), longestPause)
		born = time.Now()
		if p, err = g.bear(life); err == nil {
			g.log.Info("another guard of floating addresses watches", "pid", p.pid())
		}
	}
}

// attend returns when the guard is gone. It ends it when life ends, or when it stands still.
func (g *Guard) attend(life context.Context, p *process) {
	for {
		select {
		case <-p.ended:
			return
		case <-life.Done():
			p.bye()
			return
		case <-g.poke:
		}
		g.mu.Lock()
		a, err := p.ask(message{kind: kindAsk})
		g.mu.Unlock()
		if err == nil {
			err = a.wait(life)
		}
		if err != nil && life.Err() == nil {
			g.log.Warn("the guard of floating addresses does not answer", "pid", p.pid(), "err", err)
		}
	}
}

// overdue reports whether a guard that was to look at that time may stand still.
func overdue(next int64) bool {
	return next != 0 && next != never && monotonic()-next > int64(lateTime)
}

// introduce makes p the guard and tells it all that there is to know.
func (g *Guard) introduce(ctx context.Context, p *process) error {
	g.mu.Lock()
	g.proc = p
	var answers []*answer
	var failed error
	for _, m := range []message{
		{kind: kindWatch, addrs: g.estate.addrs}, {kind: kindTable, text: g.estate.table}, {kind: kindWill, will: g.estate.will},
	} {
		a, err := p.ask(m)
		if err != nil {
			failed = err
			break
		}
		answers = append(answers, a)
	}
	g.mu.Unlock()
	for _, a := range answers {
		if err := a.wait(ctx); err != nil {
			return err
		}
	}
	if failed != nil {
		return failed
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.alive = true
	g.announce()
	return nil
}

// lost says that p is gone.
func (g *Guard) lost(p *process) {
	g.page.next.Store(0)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.proc == p {
		g.proc, g.alive = nil, false
		g.announce()
	}
}

// announce wakes those who wait for a change. mu is held.
func (g *Guard) announce() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// removed counts a message of the guard.
func (g *Guard) removed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removals++
	g.announce()
}

// Watch replaces the list of the addresses to be removed. It returns when the guard has it: only then may an address that is new in it be put into the
// kernel. The list is kept if there is an error, and told to the next guard. The context, and two seconds, bound the wait.
func (g *Guard) Watch(ctx context.Context, addrs []Addr) error {
	addrs = slices.Clone(addrs)
	return g.tell(ctx, message{kind: kindWatch, addrs: addrs}, func(e *estate) { e.addrs = addrs })
}

// Table names the nftables table to be removed after the addresses when the program is dead. Empty: none. It returns as Watch does.
func (g *Guard) Table(ctx context.Context, name string) error {
	return g.tell(ctx, message{kind: kindTable, text: name}, func(e *estate) { e.table = name })
}

// Will replaces what Hooks.Execute is given when the program is dead. Empty: nothing is executed. It returns as Watch does.
func (g *Guard) Will(ctx context.Context, will []byte) error {
	will = slices.Clone(will)
	return g.tell(ctx, message{kind: kindWill, will: will}, func(e *estate) { e.will = will })
}

// tell changes the estate and has the guard acknowledge it.
func (g *Guard) tell(ctx context.Context, m message, change func(*estate)) error {
	if err := m.check(); err != nil {
		return err
	}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return ErrClosed
	}
	change(&g.estate)
	if g.proc == nil {
		g.mu.Unlock()
		return ErrDown
	}
	a, err := g.proc.ask(m)
	g.mu.Unlock()
	if err != nil {
		return err
	}
	return a.wait(ctx)
}

// Extend moves the time at which the addresses must be gone. Zero: there is no such time, and only the program's death counts. It costs no more than reading a clock,
// unless the new time is before the old one, for which the guard is woken before Extend returns. Without a monotonic reading in it, until is as good as the wall clock is.
func (g *Guard) Extend(until time.Time) {
	deadline := deadlineAt(until)
	g.pageMu.RLock()
	defer g.pageMu.RUnlock()
	if g.page == nil {
		return
	}
	g.page.deadline.Store(deadline)
	next := g.page.next.Load()
	early := next != 0 && deadline != 0 && next > deadline
	if early {
		ring(g.bell)
	}
	if early || overdue(next) {
		select {
		case g.poke <- struct{}{}:
		default:
		}
	}
}

// Alive reports whether the guard is there and has been told everything.
func (g *Guard) Alive() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.alive
}

// Removals returns how often the guard has taken the addresses away because the deadline had passed. Whoever sees it grow must hold them to be
// gone, and may put them back under a lease that lasts.
func (g *Guard) Removals() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.removals
}

// Changed returns a channel that is closed when Alive or Removals changes next. To miss nothing, get it before asking them.
func (g *Guard) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// PID returns the process ID of the guard; 0 if there is none.
func (g *Guard) PID() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.proc == nil {
		return 0
	}
	return g.proc.pid()
}

// Close ends the guard, which leaves all addresses alone, and waits until its process is gone. A guard that does not go is killed after two seconds,
// and that is no error; a second Close is one.
func (g *Guard) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return ErrClosed
	}
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	<-g.done
	return nil
}
