package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/packet"
)

const (
	wireEvery = 20 * time.Millisecond
	wireKeeps = 50 // questions of each address, which answers may still come to

	etherARP, etherIPv6 = 0x0806, 0x86dd
)

// wire asks the link who has addresses, as any neighbour would, and counts the stations that answer
// one question. It needs NET_RAW.
//
// Owners may change between two questions, and answers may be read late. So each question asks for
// its answer at a hardware address of its own, which tells the answers to it from all others. What
// the nodes learn from it is of protocol addresses that no host has.
type wire struct {
	ifi      net.Interface
	arp, ip6 *packet.Conn
	own4     netip.Addr // this machine's
	own6     netip.Addr
	asker4   netip.Addr // who asks
	asker6   netip.Addr
	targets  []netip.Addr

	mu        sync.Mutex
	asked     map[station]*question // the newest
	number    uint32                // of the next
	questions int
	answers   int
	most      int
}

// station is a hardware address.
type station [6]byte

// question is one, and who has answered it.
type question struct {
	target   netip.Addr
	answered map[station]bool
}

// tag is the hardware address at which the answer to a question is asked for: a local one.
func tag(number uint32) station {
	return station{0x02, 0x5a, byte(number >> 24), byte(number >> 16), byte(number >> 8), byte(number)}
}

// listenWire opens the interface from which the addresses are reached.
func listenWire(targets []netip.Addr) (*wire, error) {
	w := &wire{targets: targets, asked: make(map[station]*question)}
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
	w.asker4, w.asker6 = nobody(w.own4), nobody(w.own6)
	if w.arp, err = packet.Listen(&w.ifi, packet.Raw, etherARP, nil); err != nil {
		return nil, fmt.Errorf("ARP on %s: %w", w.ifi.Name, err)
	}
	if w.ip6, err = packet.Listen(&w.ifi, packet.Raw, etherIPv6, nil); err != nil {
		w.arp.Close()
		return nil, fmt.Errorf("neighbour discovery on %s: %w", w.ifi.Name, err)
	}
	go w.hear(w.arp, hearARP)
	go w.hear(w.ip6, hearND)
	return w, nil
}

// nobody returns an address of the same network that the example gives to no host.
func nobody(own netip.Addr) netip.Addr {
	b := own.AsSlice()
	b[len(b)-1] = 191
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

func (w *wire) close() {
	w.arp.Close()
	w.ip6.Close()
}

// ask puts one question for each address at a time.
func (w *wire) ask(ctx context.Context) {
	tick := time.NewTicker(wireEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, t := range w.targets {
			at := w.next(t)
			if t.Is4() {
				f := w.question4(t, at)
				w.arp.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
			} else {
				f := w.question6(t, at)
				w.ip6.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
			}
		}
	}
}

// next notes a question, and returns its tag.
func (w *wire) next(target netip.Addr) station {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := tag(w.number)
	delete(w.asked, tag(w.number-uint32(wireKeeps*len(w.targets))))
	w.asked[at] = &question{target, make(map[station]bool)}
	w.number++
	w.questions++
	return at
}

// question4 is an ARP request (RFC 826).
func (w *wire) question4(target netip.Addr, at station) []byte {
	f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, w.ifi.HardwareAddr...)
	f = append(f, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
	f = append(f, at[:]...)
	f = append(f, w.asker4.AsSlice()...)
	f = append(f, make([]byte, 6)...)
	return append(f, target.AsSlice()...)
}

// question6 is a neighbour solicitation (RFC 4861) to the target's solicited-node group.
func (w *wire) question6(target netip.Addr, at station) []byte {
	t := target.As16()
	group := [16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]}
	message := make([]byte, 8, 32)
	message[0] = 135
	message = append(message, t[:]...)
	message = append(message, 1, 1) // source link-layer address
	message = append(message, at[:]...)

	pseudo := append(w.asker6.AsSlice(), group[:]...)
	pseudo = append(pseudo, 0, 0, 0, byte(len(message)), 0, 0, 0, 58)
	var sum uint32
	for _, b := range [][]byte{pseudo, message} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))

	f := append([]byte{0x33, 0x33, 0xff, t[13], t[14], t[15]}, w.ifi.HardwareAddr...)
	f = append(f, 0x86, 0xdd, 6<<4, 0, 0, 0, 0, byte(len(message)), 58, 255)
	f = append(f, w.asker6.AsSlice()...)
	f = append(f, group[:]...)
	return append(f, message...)
}

func (w *wire) hear(conn *packet.Conn, understand func(frame []byte) (reply, bool)) {
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if r, ok := understand(buf[:n]); ok {
			w.note(r)
		}
	}
}

// reply says which station has an address, to the tag of a question.
type reply struct {
	addr     netip.Addr
	from, to station
}

func (w *wire) note(r reply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.asked[r.to]
	if q == nil || q.target != r.addr {
		return // to somebody else
	}
	q.answered[r.from] = true
	w.answers++
	w.most = max(w.most, len(q.answered))
}

// hearARP understands a reply.
func hearARP(f []byte) (reply, bool) {
	if len(f) < 42 || f[21] != 2 {
		return reply{}, false
	}
	return reply{netip.AddrFrom4([4]byte(f[28:32])), station(f[22:28]), station(f[32:38])}, true
}

// hearND understands an advertisement.
func hearND(f []byte) (reply, bool) {
	if len(f) < 78 || f[20] != 58 || f[54] != 136 {
		return reply{}, false
	}
	return reply{netip.AddrFrom16([16]byte(f[62:78])), station(f[6:12]), station(f[:6])}, true
}

// report returns what was seen since it was called last: questions, answers, and the most stations that have answered one question.
func (w *wire) report() (questions, answers, most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	questions, answers, most = w.questions, w.answers, w.most
	w.questions, w.answers, w.most = 0, 0, 0
	return
}
