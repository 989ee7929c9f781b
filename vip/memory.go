package vip

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Memory is a network link in memory, for tests with package clustertest. It records which machine
// answers for an address at each moment. Each machine on it has a kernel of its own. The kernel
// goes on until the lease ends, even if the machine's program is dead or stands still.
type Memory struct {
	mu    sync.Mutex
	hosts map[string]*Machine
	spans []*span
}

// span is a time in which a machine answers for an address.
type span struct {
	addr     netip.Addr
	host     string
	from, to time.Time
	open     bool // to may still move
}

// Overlap is a time in which two machines answered for one address.
type Overlap struct {
	Addr     netip.Addr // the address
	Hosts    [2]string  // the machines' names
	From, To time.Time  // when
}

// NewMemory returns a link without machines.
func NewMemory() *Memory { return &Memory{hosts: make(map[string]*Machine)} }

// Machine returns the machine with a name. The first call with the name creates it.
func (m *Memory) Machine(name string) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hosts[name]
	if h == nil {
		h = &Machine{net: m, name: name, thawed: closedChan()}
		m.hosts[name] = h
	}
	return h
}

func closedChan() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// Owners returns which machines answer for an address now.
func (m *Memory) Owners(addr netip.Addr) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, s := range m.spans {
		if s.addr == addr && s.open && time.Now().Before(s.to) {
			all = append(all, s.host)
		}
	}
	return all
}

// Overlaps returns all times so far in which two machines answered for one address.
func (m *Memory) Overlaps() []Overlap {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Overlap
	for i, a := range m.spans {
		for _, b := range m.spans[:i] {
			if a.addr != b.addr || a.host == b.host {
				continue
			}
			from, to := a.from, a.end()
			if b.from.After(from) {
				from = b.from
			}
			if b.end().Before(to) {
				to = b.end()
			}
			if from.Before(to) {
				all = append(all, Overlap{a.addr, [2]string{b.host, a.host}, from, to})
			}
		}
	}
	return all
}

// end returns when the span ended, or now if it goes on.
func (s *span) end() time.Time {
	if now := time.Now(); s.open && now.Before(s.to) {
		return now
	}
	return s.to
}

// Gaps returns the durations of all times since the first answer in which no machine answered for
// an address.
func (m *Memory) Gaps(addr netip.Addr) []time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var own []*span
	for _, s := range m.spans {
		if s.addr == addr {
			own = append(own, s)
		}
	}
	slices.SortFunc(own, func(a, b *span) int { return a.from.Compare(b.from) })
	var gaps []time.Duration
	var end time.Time
	for _, s := range own {
		if !end.IsZero() && s.from.After(end) {
			gaps = append(gaps, s.from.Sub(end))
		}
		if s.end().After(end) {
			end = s.end()
		}
	}
	return gaps
}

// Machine is a machine on a Memory. It is a Binder for the programs that run there, one after
// another.
type Machine struct {
	net  *Memory
	name string

	// net.mu guards these.
	holdDown time.Duration
	places   []*memoryPlace // of the program that runs
	thawed   chan struct{}  // closed unless the program stands still
	changed  chan struct{}
	down     bool
}

// SetHoldDown sets the hold-down time. The machine's kernel then ends addresses that were not
// extended so much later than the lease, as a kernel without nftables does.
func (h *Machine) SetHoldDown(d time.Duration) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.holdDown = d
}

// SetDown removes the machine's interface, or puts it back.
func (h *Machine) SetDown(down bool) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.down = down
	if down {
		for _, p := range h.places {
			p.close(true)
		}
	}
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// Freeze makes the program stand still. What it calls waits for Thaw.
func (h *Machine) Freeze() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.thawed = make(chan struct{})
}

// Thaw ends Freeze.
func (h *Machine) Thaw() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	select {
	case <-h.thawed:
	default:
		close(h.thawed)
	}
}

// Die ends the program. Its calls do nothing any more. Addresses in the kernel stay there until
// their time is over. Die returns the death notices of the units in place, for a guard to send
// after Remove.
func (h *Machine) Die() (notices [][]byte) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for _, p := range h.places {
		if len(p.spans) > 0 {
			notices = append(notices, p.notice)
		}
		p.dead = true
	}
	return notices
}

// Remove removes what a dead program has left, as its guard does.
func (h *Machine) Remove() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for _, p := range h.places {
		if p.dead {
			p.close(true)
		}
	}
}

// Attach implements Binder. It removes what a dead program has left of the unit.
func (h *Machine) Attach(_ context.Context, u Unit) (Place, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.places = slices.DeleteFunc(h.places, func(p *memoryPlace) bool {
		if p.dead && p.unit.Name == u.Name {
			p.close(true)
			return true
		}
		return false
	})
	p := &memoryPlace{host: h, unit: u}
	h.places = append(h.places, p)
	return p, nil
}

// memoryPlace is the Place of a Memory. net.mu guards it.
type memoryPlace struct {
	host   *Machine
	unit   Unit
	spans  []*span // that are open
	notice []byte  // the death notice
	dead   bool
}

var errDead = errors.New("the program is dead")

// enter waits while the program stands still, and takes the lock.
func (p *memoryPlace) enter() (leave func(), err error) {
	m := p.host.net
	for {
		m.mu.Lock()
		thawed := p.host.thawed
		select {
		case <-thawed:
			if p.dead {
				m.mu.Unlock()
				return nil, errDead
			}
			return m.mu.Unlock, nil
		default:
			m.mu.Unlock()
		}
		<-thawed
	}
}

// close ends the unit's spans: now, or when their time is over.
func (p *memoryPlace) close(now bool) {
	for _, s := range p.spans {
		s.open = false
		if at := time.Now(); now && at.Before(s.to) {
			s.to = at
		}
	}
	p.spans = nil
}

// HoldDown implements Place.
func (p *memoryPlace) HoldDown() time.Duration {
	p.host.net.mu.Lock()
	defer p.host.net.mu.Unlock()
	return p.host.holdDown
}

// Guarded implements Guarded.
func (p *memoryPlace) Guarded() bool { return true }

// Usable implements Place.
func (p *memoryPlace) Usable() error {
	p.host.net.mu.Lock()
	defer p.host.net.mu.Unlock()
	if p.host.down {
		return errors.New("the interface is down")
	}
	return nil
}

// Changed implements Place.
func (p *memoryPlace) Changed() <-chan struct{} {
	p.host.net.mu.Lock()
	defer p.host.net.mu.Unlock()
	if p.host.changed == nil {
		p.host.changed = make(chan struct{})
	}
	return p.host.changed
}

// Bind implements Place.
func (p *memoryPlace) Bind(_ context.Context, g Grant) error {
	leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	now := time.Now()
	if !now.Before(g.Until) {
		return errExpired
	}
	if p.host.down {
		return errors.New("the interface is down")
	}
	p.notice = g.DeathNotice()
	p.close(true)
	for _, a := range p.unit.Addrs {
		s := &span{addr: a.Addr(), host: p.host.name, from: now, to: g.Until.Add(p.host.holdDown), open: true}
		p.spans = append(p.spans, s)
		p.host.net.spans = append(p.host.net.spans, s)
	}
	return nil
}

// setDeathNotice implements noticed.
func (p *memoryPlace) setDeathNotice(notice []byte) {
	if leave, err := p.enter(); err == nil {
		defer leave()
		p.notice = notice
	}
}

// Extend implements Place.
func (p *memoryPlace) Extend(until time.Time) (time.Duration, error) {
	leave, err := p.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	if now := time.Now(); !now.Before(until) { // the program stood still
		return 0, nil
	}
	for _, s := range p.spans {
		if time.Now().Before(s.to) {
			s.to = until.Add(p.host.holdDown)
		}
	}
	return 0, nil
}

// Announce implements Place.
func (p *memoryPlace) Announce() error { return nil }

// Mend implements Place.
func (p *memoryPlace) Mend(context.Context) (bool, error) { return false, nil }

// Quiesce implements Place.
func (p *memoryPlace) Quiesce(context.Context) error { return nil }

// Release implements Place.
func (p *memoryPlace) Release(context.Context) error { return p.Unbind() }

// Unbind implements Place.
func (p *memoryPlace) Unbind() error {
	leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	p.close(true)
	return nil
}

// Close implements Place.
func (p *memoryPlace) Close() error {
	err := p.Unbind()
	if errors.Is(err, errDead) {
		return nil
	}
	p.host.net.mu.Lock()
	defer p.host.net.mu.Unlock()
	p.host.places = slices.DeleteFunc(p.host.places, func(q *memoryPlace) bool { return q == p })
	return err
}
