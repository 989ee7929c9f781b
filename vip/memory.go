package vip

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Memory is a link in memory, for tests with package clustertest: it knows who answers for an
// address at each instant. Each machine on it has a kernel of its own, which goes on when the
// program there is dead or stands still, as long as it was told to.
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

// Machine returns the machine with that name, a Binder; it is made when it is asked for first.
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

// end returns until when it lasted so far.
func (s *span) end() time.Time {
	if now := time.Now(); s.open && now.Before(s.to) {
		return now
	}
	return s.to
}

// Gaps returns the times, since the first answer, in which nobody answered for an address.
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

// Machine is one on a Memory. As a Binder it serves the programs that run there, one after another.
type Machine struct {
	net  *Memory
	name string

	// The fields below are guarded by net.mu.
	lingers time.Duration
	places  []*memoryPlace // of the program that runs
	thawed  chan struct{}  // closed unless the program stands still
	changed chan struct{}
	down    bool
}

// SetLinger has the kernel of the machine end what was not extended that much later than it should,
// as one without nftables does.
func (h *Machine) SetLinger(d time.Duration) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.lingers = d
}

// SetDown takes the machine's interface away, or brings it back.
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

// Freeze has the program stand still: what it asks for is done after Thaw.
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

// Die ends the program: nothing that it asks for is done any more. What is in the kernel stays
// there until it is due. The wills of all that was in place are returned, for a guard to execute
// after Remove.
func (h *Machine) Die() (wills [][]byte) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for _, p := range h.places {
		if len(p.spans) > 0 {
			wills = append(wills, p.will)
		}
		p.dead = true
	}
	return wills
}

// Remove takes away what a dead program has left, as its guard does.
func (h *Machine) Remove() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for _, p := range h.places {
		if p.dead {
			p.close(true)
		}
	}
}

// Attach implements Binder. What a dead program has left of the unit is taken away.
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
	host  *Machine
	unit  Unit
	spans []*span // that are open
	will  []byte
	dead  bool
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

// close ends what is seen of the unit: now, or, if nobody takes it away, when it is due.
func (p *memoryPlace) close(now bool) {
	for _, s := range p.spans {
		s.open = false
		if at := time.Now(); now && at.Before(s.to) {
			s.to = at
		}
	}
	p.spans = nil
}

// Linger implements Place.
func (p *memoryPlace) Linger() time.Duration {
	p.host.net.mu.Lock()
	defer p.host.net.mu.Unlock()
	return p.host.lingers
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
	p.will = g.Will()
	p.close(true)
	for _, a := range p.unit.Addrs {
		s := &span{addr: a.Addr(), host: p.host.name, from: now, to: g.Until.Add(p.host.lingers), open: true}
		p.spans = append(p.spans, s)
		p.host.net.spans = append(p.host.net.spans, s)
	}
	return nil
}

// Extend implements Place.
func (p *memoryPlace) Extend(until time.Time) (time.Duration, error) {
	leave, err := p.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	if now := time.Now(); !now.Before(until) { // the program has stood still
		return 0, nil
	}
	for _, s := range p.spans {
		if time.Now().Before(s.to) {
			s.to = until.Add(p.host.lingers)
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
