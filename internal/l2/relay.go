package l2

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/packet"
)

// Bounds of a relay.
const (
	maxKept      = 4096        // attempts that wait
	maxKeptBytes = 1 << 20     // bytes of them
	maxSeen      = 4 * maxKept // attempts that are remembered
	maxSent      = 4           // times that one attempt is passed on: two relays that take each other for the owner end there
)

// RelayStats counts what a Relay did.
type RelayStats struct {
	Kept      int // attempts that had to wait for the new owner, sent on since or not
	Forwarded int // frames sent on to new owners
	Lost      int // frames that were not kept or not sent on: for lack of room, because they were damaged, or because sending failed
}

// Relay keeps connection attempts to addresses that are about to move to another station of the link, and passes them on to it when it
// announces them, so that clients need not wait a second for the retransmission. A frame goes on as the IP packet that it brought, from this
// interface's hardware address to the new owner's.
//
// An attempt is a TCP SYN without ACK that is sent to this interface, in a packet that is not fragmented and, with IPv6, has no extension
// headers. What else is under way, UDP for one, is not relayed. The new owner is whoever announces the address: that
// can be anybody on the link, just as for every client's cache.
type Relay struct {
	name   string
	conn   *packet.Conn
	self   mac
	closed atomic.Bool

	announced chan struct{} // closed when all addresses are announced
	ended     chan struct{} // closed when run has returned
	err       error         // of run, from then on

	// What run alone touches.
	addrs   map[netip.Addr]*moving
	pending int                // addresses that are not announced
	seen    map[attemptKey]int // how often an attempt was sent on
	waiting int                // attempts that wait
	bytes   int                // of them

	mu    sync.Mutex
	stats RelayStats
}

// moving is an address that is about to move.
type moving struct {
	owner mac       // zero until it is announced
	kept  []waiting // until then
}

// waiting is one attempt that waits.
type waiting struct {
	key   attemptKey
	frame []byte
}

// Hold begins to keep connection attempts to addrs: every frame that arrives after its return is seen, and no firewall rule of this kernel takes it
// away before. It takes none itself: the kernel gets them all the same, and is to be kept from answering by other means.
func (l *Link) Hold(addrs ...netip.Addr) (*Relay, error) {
	r := &Relay{
		name:      l.ifi.Name,
		announced: make(chan struct{}),
		ended:     make(chan struct{}),
		addrs:     make(map[netip.Addr]*moving),
		seen:      make(map[attemptKey]int),
	}
	var unique []netip.Addr
	for _, addr := range addrs {
		a, err := plain(addr)
		if err != nil {
			return nil, err
		}
		if r.addrs[a] == nil {
			r.addrs[a] = new(moving)
			unique = append(unique, a)
		}
	}
	conn, err := openSocket(&l.ifi, allProtocols, append(guard(), relayFilter(unique)...))
	if err != nil {
		return nil, err
	}
	r.conn, r.pending = conn, len(unique)
	if r.self, err = hardwareAddr(conn); err == nil {
		err = join(conn, multicast(allNodes()))
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", l.ifi.Name, err)
	}
	if r.pending == 0 {
		close(r.announced)
	}
	go r.run()
	return r, nil
}

// Await waits until another station has announced every address, and returns nil then. What was kept for an address has been sent on to it by
// then, and what still comes is sent on at once, until Close. The error is the context's cause; or net.ErrClosed, wrapped, after Close.
func (r *Relay) Await(ctx context.Context) error {
	select {
	case <-r.announced:
		return nil
	default:
	}
	select {
	case <-r.announced:
		return nil
	case <-r.ended:
		return fmt.Errorf("the relay on %s has ended: %w", r.name, r.err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Stats returns what the relay did until now.
func (r *Relay) Stats() RelayStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The kernel forgets this number as it tells it. A closed socket has none.
	if s, err := r.conn.Stats(); err == nil {
		r.stats.Lost += int(s.Drops)
	}
	return r.stats
}

// Close ends the relay. Attempts that still wait are dropped: their clients repeat them.
func (r *Relay) Close() error {
	var err error
	if !r.closed.Swap(true) {
		r.Stats() // the last that the kernel knows
		err = r.conn.Close()
	}
	<-r.ended
	return err
}

// run reads until Close.
func (r *Relay) run() {
	defer close(r.ended)
	buf := make([]byte, maxFrame)
	for {
		n, _, err := r.conn.ReadFrom(buf)
		switch {
		case r.closed.Load():
			r.err = net.ErrClosed
			return
		case err != nil && passing(err):
			continue // the kernel reports it once
		case err != nil:
			r.err = err
			return
		}
		r.handle(hear(buf[:n]))
	}
}

// handle sees what a frame means to the relay.
func (r *Relay) handle(h heard) {
	m := r.addrs[h.addr]
	if m == nil || h.source == r.self {
		return
	}
	switch {
	case h.kind == attempt && m.owner == mac{}:
		r.keep(m, h)
	case h.kind == attempt && h.source != m.owner: // from there it would go in a circle
		if n, known := r.seen[h.key]; n >= maxSent || !known && len(r.seen) >= maxSeen {
			r.count(RelayStats{Lost: 1})
		} else if frame, ok := r.frame(h); ok {
			r.forward(m, waiting{h.key, frame})
		}
	case h.kind == claimed && h.mac != r.self:
		first := m.owner == mac{}
		m.owner = h.mac
		for _, w := range m.kept {
			r.waiting, r.bytes = r.waiting-1, r.bytes-len(w.frame)
			r.forward(m, w)
		}
		m.kept = nil
		if first {
			if r.pending--; r.pending == 0 {
				close(r.announced)
			}
		}
	}
}

// keep lets an attempt wait, if it does not already.
func (r *Relay) keep(m *moving, h heard) {
	if _, known := r.seen[h.key]; known {
		return
	}
	if r.waiting >= maxKept || r.bytes+etherLen+len(h.packet) > maxKeptBytes {
		r.count(RelayStats{Lost: 1})
		return
	}
	frame, ok := r.frame(h)
	if !ok {
		return
	}
	r.seen[h.key] = 0
	m.kept = append(m.kept, waiting{h.key, frame})
	r.waiting, r.bytes = r.waiting+1, r.bytes+len(frame)
	r.count(RelayStats{Kept: 1})
}

// frame returns the frame that takes an attempt on, to an owner yet to be filled in.
func (r *Relay) frame(h heard) ([]byte, bool) {
	typ := uint16(etherIPv6)
	if h.addr.Is4() {
		typ = etherIPv4
	}
	frame := etherFrame(mac{}, r.self, typ, len(h.packet))
	copy(frame[etherLen:], h.packet)
	if complete(frame[etherLen:]) != nil {
		r.count(RelayStats{Lost: 1})
		return nil, false
	}
	return frame, true
}

// forward sends an attempt to the owner.
func (r *Relay) forward(m *moving, w waiting) {
	if self, err := hardwareAddr(r.conn); err == nil {
		r.self = self // the interface may have another by now
	}
	copy(w.frame, m.owner[:])
	copy(w.frame[6:], r.self[:])
	r.seen[w.key]++
	r.count(RelayStats{Forwarded: 1}) // before anybody can have the frame
	if send(r.conn, w.frame) != nil {
		r.count(RelayStats{Forwarded: -1, Lost: 1})
	}
}

func (r *Relay) count(d RelayStats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Kept += d.Kept
	r.stats.Forwarded += d.Forwarded
	r.stats.Lost += d.Lost
}
