package guard

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/event"
)

const (
	// A guard that has lived for longLife is replaced at once. The pauses before further starts
	// grow from firstPause to longestPause.
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
	longLife     = 10 * time.Second

	lateTime = 500 * time.Millisecond // a guard that is so late for its deadline is asked to answer
)

// Guard is the program's side of its guard. Its methods may be called from several goroutines at
// once.
type Guard struct {
	log      *slog.Logger
	launcher *launcher
	check    chan struct{} // an element: the guard may stand still
	cancel   context.CancelFunc
	done     chan struct{} // closed when the guard is gone and will not be replaced
	disown   func()        // ends the thread that owns the robust futex

	pageMu sync.RWMutex
	page   *page // nil: closed
	bell   int   // file descriptor

	// mu is held while a message is written, so messages are sent in the order in which set
	// changes. The socket has room for several.
	mu       sync.Mutex
	closed   bool
	set      guardedSet
	notices  map[any][]byte // those of set, by who has given them
	proc     *process       // nil: there is none
	alive    bool           // proc has the present duty, and has acknowledged set
	trouble  error          // why the last start has failed; nil: it has not
	removals uint64
	changed  chan struct{}
}

// Start starts the guard of this program. It returns when the guard is ready, or when a first
// attempt has failed; ctx bounds that attempt only. Further attempts follow in the background:
// Await and Alive tell their result. The guard and its successors are in the network namespace of
// the calling thread. Nearly all callers want Join, because one guard is enough for a program.
func Start(ctx context.Context, d Duty, log *slog.Logger) (*Guard, error) {
	if _, ok := readProof(); ok {
		return nil, errors.New("this process is itself a guard: " +
			"a program must call IsGuard and Main before anything else")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if os.Getpid() == 1 {
		log.Warn("this program is process 1 of its pid namespace: if it is killed, the kernel kills its guard with it, " +
			"and what it held moves when its lease ends, and not at once; floating addresses stay until their lifetimes end or " +
			"the network namespace is gone; " +
			"an init process does not change that, the host's pid namespace does")
	}
	netns, err := threadNamespace()
	if err != nil {
		return nil, err
	}
	page, memory, err := newPage()
	if err != nil {
		netns.Close()
		return nil, err
	}
	bell, err := newBell()
	if err != nil {
		netns.Close()
		page.unmap()
		memory.Close()
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background())
	g := &Guard{
		log: log, launcher: &launcher{memory: memory, bell: bell, netns: netns, duty: d}, cancel: cancel,
		check: make(chan struct{}, 1), done: make(chan struct{}), changed: make(chan struct{}),
		page: page, bell: int(bell.Fd()), disown: page.robust.own(), notices: make(map[any][]byte),
	}
	p, err := g.launch(ctx)
	go g.supervise(life, p, err)
	return g, nil
}

// launch starts a process and makes it the guard.
func (g *Guard) launch(ctx context.Context) (*process, error) {
	g.mu.Lock()
	launcher := *g.launcher
	g.mu.Unlock()
	p, err := launcher.start(ctx, g.onRemoved)
	if err == nil {
		if err = g.handOver(ctx, p); err == nil {
			return p, nil
		}
		p.kill()
		g.forget(p)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trouble = err
	g.notify()
	return nil, err
}

// widen has the guard remove addresses too. It is replaced by one that can, in the network
// namespace of the calling thread. For some milliseconds there is none.
func (g *Guard) widen() error {
	netns, err := threadNamespace()
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.launcher.duty == Addresses {
		return netns.Close()
	}
	g.launcher.former, g.launcher.netns, g.launcher.duty = g.launcher.netns, netns, Addresses
	g.alive, g.trouble = false, nil
	g.notify()
	g.lookAgain()
	return nil
}

// lookAgain makes monitor look at the guard.
func (g *Guard) lookAgain() {
	select {
	case g.check <- struct{}{}:
	default: // it will look anyway
	}
}

// Await waits until a guard runs and has acknowledged everything. It returns why the last start of
// one has failed, or the cause of the end of ctx.
func (g *Guard) Await(ctx context.Context) error {
	for {
		g.mu.Lock()
		alive, trouble, changed := g.alive, g.trouble, g.changed
		g.mu.Unlock()
		if alive || trouble != nil {
			return trouble
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// release closes what guards are started with.
func (g *Guard) release() {
	g.disown()
	g.pageMu.Lock()
	defer g.pageMu.Unlock()
	g.launcher.close()
	g.page.unmap()
	g.page = nil
}

// supervise starts guard after guard until life ends. p is the first one. If p is nil, the first
// start has failed with err.
func (g *Guard) supervise(life context.Context, p *process, err error) {
	defer close(g.done)
	defer g.release()
	var pause time.Duration
	reported := ""
	for born := time.Now(); ; {
		replaced := false
		if p != nil {
			reported = ""
			replaced = g.monitor(life, p)
			g.forget(p)
		}
		if life.Err() != nil {
			return
		}
		if replaced {
			g.log.Debug("the guard is replaced by one that removes addresses too", "pid", p.pid(), "end", p.result())
			pause = 0
		} else if p != nil {
			g.log.Warn("the guard has died; another is started", "event", event.GuardFailed, "pid", p.pid(), "end", p.result())
		} else if text := err.Error(); text != reported {
			reported = text
			g.log.Error("no guard could be started; "+
				"until one is, what a dead program held moves when its lease ends, and not at once", "event", event.GuardFailed, "err", err)
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
		if p, err = g.launch(life); err == nil {
			g.log.Info("another guard watches", "pid", p.pid())
		}
	}
}

// monitor returns when the guard is gone. It ends the guard when life ends, when the guard stands
// still, and when it has not the present duty. It reports the last of these.
func (g *Guard) monitor(life context.Context, p *process) (replaced bool) {
	for {
		select {
		case <-p.ended:
			return false
		case <-life.Done():
			p.close()
			return false
		case <-g.check:
		}
		g.mu.Lock()
		if p.duty != g.launcher.duty {
			g.mu.Unlock()
			p.close()
			return true
		}
		a, err := p.ask(message{kind: kindAsk})
		g.mu.Unlock()
		if err == nil {
			err = a.wait(life)
		}
		if err != nil && life.Err() == nil {
			g.log.Warn("the guard does not answer", "pid", p.pid(), "err", err)
		}
	}
}

// overdue reports whether a guard that was to look at the time next may stand still.
func overdue(next int64) bool {
	return next != 0 && next != never && monotonic()-next > int64(lateTime)
}

// handOver makes p the guard and gives it the guarded set.
func (g *Guard) handOver(ctx context.Context, p *process) error {
	g.mu.Lock()
	g.proc = p
	var answers []*answer
	var failed error
	for _, m := range []message{
		{kind: kindWatch, addrs: g.set.addrs},
		{kind: kindTable, text: g.set.table},
		{kind: kindNotice, notices: g.set.notices},
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
	g.alive, g.trouble = p.duty == g.launcher.duty, nil
	g.notify()
	return nil
}

// forget is called when p is gone.
func (g *Guard) forget(p *process) {
	g.page.next.Store(0)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.proc == p {
		g.proc, g.alive = nil, false
		g.notify()
	}
}

// notify wakes those who wait for a change. mu is held.
func (g *Guard) notify() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// onRemoved counts a removal by the guard.
func (g *Guard) onRemoved() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removals++
	g.notify()
}

// Watch replaces the list of addresses that the guard removes. It returns when the guard has
// acknowledged the list. Only then may a new address of the list be put into the kernel. After an
// error the list is kept and given to the next guard. Watch waits until ctx ends, and at most two
// seconds.
func (g *Guard) Watch(ctx context.Context, addrs []Addr) error {
	m := message{kind: kindWatch, addrs: slices.Clone(addrs)}
	return g.update(ctx, func() message { return m }, func() { g.set.addrs = m.addrs })
}

// Table names the nftables table that is removed after the addresses when the program is dead.
// Empty means none. It returns as Watch does.
func (g *Guard) Table(ctx context.Context, name string) error {
	m := message{kind: kindTable, text: name}
	return g.update(ctx, func() message { return m }, func() { g.set.table = name })
}

// DeathNotice replaces what Hooks.SendNotice gets from this owner when the program is dead. Empty
// means that nothing is sent. The notices of other owners are sent too. The owner must be
// comparable. It returns as Watch does.
func (g *Guard) DeathNotice(ctx context.Context, owner any, notice []byte) error {
	notice = slices.Clone(notice)
	var all map[any][]byte
	var m message
	return g.update(ctx, func() message {
		all = make(map[any][]byte)
		maps.Copy(all, g.notices)
		delete(all, owner)
		if len(notice) > 0 {
			all[owner] = notice
		}
		m = message{kind: kindNotice, notices: slices.Collect(maps.Values(all))}
		return m
	}, func() { g.notices, g.set.notices = all, m.notices })
}

// update changes the guarded set and waits until the guard has acknowledged that. It calls build
// and then change with mu held, but not change if nobody would accept the message.
func (g *Guard) update(ctx context.Context, build func() message, change func()) error {
	g.mu.Lock()
	m := build()
	if err := m.check(); err != nil {
		g.mu.Unlock()
		return err
	}
	if g.closed {
		g.mu.Unlock()
		return ErrClosed
	}
	change()
	if g.proc == nil || g.proc.duty != g.launcher.duty {
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

// Extend moves the deadline, the time at which the addresses must be gone. The zero time means that
// there is no deadline, and only the program's death counts. Extend costs about as much as reading
// a clock, unless the new deadline is earlier than the old one: then it wakes the guard before it
// returns. An until without a monotonic reading is only as good as the wall clock.
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
		g.lookAgain()
	}
}

// Alive reports whether a guard runs and has acknowledged everything.
func (g *Guard) Alive() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.alive
}

// Removals returns how often the guard has removed the addresses because the deadline had passed. A
// caller that sees it grow must assume that they are gone, and may put them back under a lease that
// lasts.
func (g *Guard) Removals() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.removals
}

// Changed returns a channel that is closed when Alive or Removals changes next. A caller that gets
// the channel before it calls them misses no change.
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

// Close ends the guard and waits until its process is gone. The guard touches no address. A guard
// that does not exit within two seconds is killed, without an error. A second Close returns
// ErrClosed.
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
