package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/packet"

	"github.com/flotilla-ha/flotilla/internal/netlab/frame"
)

const (
	wireEvery = 20 * time.Millisecond
	wireKeeps = 50 // questions of each address that still accept answers
)

// wire asks the link who has addresses, as any neighbour would, and counts the stations that answer
// one question. It needs NET_RAW.
//
// Owners may change between two questions, and answers may be read late. So each question asks for
// its answer at a hardware address of its own, its tag, which tells the answers apart. The asking
// protocol address belongs to no host, so the questions teach the nodes nothing about real hosts.
type wire struct {
	ifi      net.Interface
	arp, ip6 *packet.Conn
	own4     netip.Addr // of this machine
	own6     netip.Addr
	asker4   netip.Addr // in the questions
	asker6   netip.Addr
	targets  []netip.Addr

	mu        sync.Mutex
	asked     map[frame.MAC]*question // the newest, by their tags
	number    uint32                  // of the next
	questions int
	answers   int
	most      int
}

// question is a question, and the stations that answered it.
type question struct {
	target   netip.Addr
	answered map[frame.MAC]bool
}

// tag returns the local hardware address at which a question asks for its answer.
func tag(number uint32) frame.MAC {
	return frame.MAC{0x02, 0x5a, byte(number >> 24), byte(number >> 16), byte(number >> 8), byte(number)}
}

// listenWire opens the interface that leads to the addresses.
func listenWire(targets []netip.Addr) (*wire, error) {
	w := &wire{targets: targets, asked: make(map[frame.MAC]*question)}
	for _, t := range targets {
		c, err := net.Dial("udp", netip.AddrPortFrom(t, 9).String()) // sends nothing
		if err != nil {
			return nil, err
		}
		own := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
		c.Close()
		if t.Is4() {
			w.own4 = own
		} else {
			w.own6 = own
		}
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, ifi := range all {
		addrs, _ := ifi.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && (p.Addr() == w.own4 || p.Addr() == w.own6) {
				w.ifi = ifi
			}
		}
	}
	w.asker4, w.asker6 = unused(w.own4), unused(w.own6)
	if w.arp, err = packet.Listen(&w.ifi, packet.Raw, frame.EtherARP, nil); err != nil {
		return nil, fmt.Errorf("ARP on %s: %w", w.ifi.Name, err)
	}
	if w.ip6, err = packet.Listen(&w.ifi, packet.Raw, frame.EtherIPv6, nil); err != nil {
		w.arp.Close()
		return nil, fmt.Errorf("neighbour discovery on %s: %w", w.ifi.Name, err)
	}
	go w.listen(w.arp)
	go w.listen(w.ip6)
	return w, nil
}

// unused returns an address of the same network that the example gives to no host.
func unused(own netip.Addr) netip.Addr {
	b := own.AsSlice()
	b[len(b)-1] = 191
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

func (w *wire) close() {
	w.arp.Close()
	w.ip6.Close()
}

// ask asks one question for each address at each interval.
func (w *wire) ask(ctx context.Context) {
	repeat(ctx, wireEvery, func() {
		for _, t := range w.targets {
			conn, asker := w.arp, w.asker4
			if t.Is6() {
				conn, asker = w.ip6, w.asker6
			}
			f := frame.Question(frame.MAC(w.ifi.HardwareAddr), w.next(t), asker, t)
			conn.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
		}
	})
}

// next records a question, and returns its tag.
func (w *wire) next(target netip.Addr) frame.MAC {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := tag(w.number)
	delete(w.asked, tag(w.number-uint32(wireKeeps*len(w.targets))))
	w.asked[at] = &question{target, make(map[frame.MAC]bool)}
	w.number++
	w.questions++
	return at
}

// listen reads answers until the connection is closed.
func (w *wire) listen(conn *packet.Conn) {
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if c, ok := frame.ParseClaim(buf[:n]); ok {
			w.observe(c)
		}
	}
}

// observe records an answer.
func (w *wire) observe(c frame.Claim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.asked[c.To]
	if q == nil || q.target != c.Addr {
		return // an answer to another question
	}
	q.answered[c.MAC] = true
	w.answers++
	w.most = max(w.most, len(q.answered))
}

// report returns figures since its last call: questions, answers, and the most stations that have
// answered one question.
func (w *wire) report() (questions, answers, most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	questions, answers, most = w.questions, w.answers, w.most
	w.questions, w.answers, w.most = 0, 0, 0
	return
}
