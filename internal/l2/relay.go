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

// Limits of a relay.
const (
	maxKept      = 4096        // attempts that wait
	maxKeptBytes = 1 << 20     // bytes of them
	maxSeen      = 4 * maxKept // attempts that are known
	maxSent      = 4           // times that an attempt is passed on; it ends a circle of two relays
)

// RelayStats counts what a Relay did.
type RelayStats struct {
	Kept      int // attempts that waited, or wait, for the new owner
	Forwarded int // frames sent on to new owners
	Lost      int // frames not kept or not sent on: no room, damaged, or not sent
}

// Relay keeps connection attempts to addresses that are about to move to another station on the
// link. It passes them on when that station announces the addresses, so that clients need not wait
// a second for a retransmission. The IP packet goes on unchanged, from this interface's hardware
// address to the new owner's.
//
// An attempt is a TCP SYN without ACK that is sent to this interface. The packet must not be
// fragmented and, with IPv6, must have no extension headers. Other traffic, such as UDP, is not
// relayed. The new owner is the station that announces the address. Any station on the link can do
// that, and every client's cache believes it too.
type Relay struct {
	name   string
	conn   *packet.Conn
	self   mac
	closed atomic.Bool

	announced chan struct{} // closed when all addresses are announced
	ended     chan struct{} // closed when run has returned
	err       error         // of run, from then on

	// Used by run only.
	addrs   map[netip.Addr]*moving
	pending int                // addresses not announced yet
	seen    map[attemptKey]int // how often an attempt was sent on
	waiting int                // attempts that wait
	bytes   int                // of the attempts that wait

	mu    sync.Mutex
	stats RelayStats
}

// moving is an address that is about to move.
type moving struct {
	owner mac       // zero until it is announced
	kept  []waiting // attempts until then
}

// waiting is one attempt that waits.
type waiting struct {
	key   attemptKey
	frame []byte
}

// Hold begins to keep connection attempts to addrs. The relay sees every frame that arrives after
// the return of Hold, before any firewall rule of this kernel. The kernel gets the frames too: keep
// it from answering by other means.
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

// Await returns nil when other stations have announced every address. By then everything that was
// kept has been sent on. What still arrives is sent on at once, until Close. The error is the
// context's cause, or wraps net.ErrClosed after Close.
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

// Stats returns what the relay has done so far.
func (r *Relay) Stats() RelayStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Reading this number resets it. A closed socket has none.
	if s, err := r.conn.Stats(); err == nil {
		r.stats.Lost += int(s.Drops)
	}
	return r.stats
}

// Close ends the relay. It drops attempts that still wait; their clients repeat them.
func (r *Relay) Close() error {
	var err error
	if !r.closed.Swap(true) {
		r.Stats() // reads what the kernel still counts
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
		r.handle(parse(buf[:n]))
	}
}

// handle does what a frame demands.
func (r *Relay) handle(h observed) {
	m := r.addrs[h.addr]
	if m == nil || h.source == r.self {
		return
	}
	switch {
	case h.kind == attempt && m.owner == mac{}:
		r.keep(m, h)
	case h.kind == attempt && h.source != m.owner: // otherwise it would go in a circle
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

// keep makes an attempt wait, unless it waits already.
func (r *Relay) keep(m *moving, h observed) {
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

// frame returns the frame that passes an attempt on. The owner is to be filled in.
func (r *Relay) frame(h observed) ([]byte, bool) {
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
		r.self = self // the interface may have another address by now
	}
	copy(w.frame, m.owner[:])
	copy(w.frame[6:], r.self[:])
	r.seen[w.key]++
	r.count(RelayStats{Forwarded: 1}) // before a receiver can have the frame
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
