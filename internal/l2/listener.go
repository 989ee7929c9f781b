package l2

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
)

// Claim is what another station on the link says about an address.
type Claim struct {
	// Addr is the address.
	Addr netip.Addr
	// MAC is the hardware address of the station.
	MAC net.HardwareAddr
	// Probe means that the station asks for the address in order to take it. Otherwise it says that
	// it has the address.
	Probe bool
}

// Listener notices other stations that claim addresses: by ARP of any form, by neighbour
// advertisements with the override flag, and by the solicitations of duplicate address detection.
// Advertisements without that flag belong to proxies and anycast addresses.
//
// A Listener does not see answers of one station to another. A station that announces nothing must
// therefore be asked: see Probe. A filter in the kernel drops frames that do not concern the
// addresses, so they do not wake this process.
type Listener struct {
	ifi     net.Interface
	onClaim func(Claim)
	runs    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	addrs  []netip.Addr
	v4, v6 *packet.Conn // nil: there was no address of that kind yet
}

// Listen returns a listener. It calls onClaim from goroutines of its own, for the addresses of Set.
func (l *Link) Listen(onClaim func(Claim)) *Listener { return &Listener{ifi: l.ifi, onClaim: onClaim} }

// Set replaces the addresses.
func (l *Listener) Set(addrs []netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	all := make([]netip.Addr, 0, len(addrs))
	for _, addr := range addrs {
		a, err := plain(addr)
		if err != nil {
			return err
		}
		all = append(all, a)
	}
	l.addrs = all
	return errors.Join(
		l.listen(&l.v4, etherARP, append(guard(), claimFilter4(all)...), false),
		l.listen(&l.v6, etherIPv6, append(guard(), claimFilter6(all)...), true),
	)
}

// listen opens a socket, or gives an open one another filter. mu is held.
func (l *Listener) listen(conn **packet.Conn, protocol int, filter []bpf.Instruction, six bool) error {
	some := false
	for _, a := range l.addrs {
		some = some || a.Is6() == six
	}
	if *conn != nil {
		raw, err := bpf.Assemble(filter)
		if err == nil {
			err = (*conn).SetBPF(raw)
		}
		return err
	}
	if !some {
		return nil
	}
	c, err := openSocket(&l.ifi, protocol, filter)
	if err == nil && six {
		if err = join(c, multicast(allNodes())); err != nil {
			c.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s for claims of addresses: %w", l.ifi.Name, err)
	}
	*conn = c
	l.runs.Go(func() { l.run(c) })
	return nil
}

// Probe asks for the addresses once, as a station that wants them would. Another station that has
// one answers, and the answer is a Claim. This machine's kernel does not see the question.
func (l *Listener) Probe() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, a := range l.addrs {
		conn := l.v4
		if a.Is6() {
			conn = l.v6
		}
		if conn == nil {
			continue
		}
		self, err := hardwareAddr(conn)
		if err == nil {
			err = send(conn, probe(self, a))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot ask for %v on %s: %w", a, l.ifi.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Close ends the listener. onClaim is not called any more when Close returns.
func (l *Listener) Close() error {
	l.mu.Lock()
	var errs []error
	if !l.closed {
		l.closed = true
		for _, c := range []*packet.Conn{l.v4, l.v6} {
			if c != nil {
				errs = append(errs, c.Close())
			}
		}
	}
	l.mu.Unlock()
	l.runs.Wait()
	return errors.Join(errs...)
}

// run reads until the socket is closed or its interface is gone.
func (l *Listener) run(conn *packet.Conn) {
	buf := make([]byte, maxFrame)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil && passing(err) {
			continue // the kernel reports it once
		}
		if err != nil {
			return
		}
		h := parse(buf[:n])
		if h.kind != claimed && h.kind != probed || h.proxy || !l.about(h.addr) {
			continue
		}
		if self, err := hardwareAddr(conn); err == nil && (h.mac == self || h.source == self) {
			continue
		}
		l.onClaim(Claim{Addr: h.addr, MAC: net.HardwareAddr(h.mac[:]), Probe: h.kind == probed})
	}
}

// about reports whether an address is one of those of Set.
func (l *Listener) about(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.addrs {
		if a == b {
			return true
		}
	}
	return false
}
