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

	etherARP, etherIPv6 = 0x0806, 0x86dd
)

// wire asks the link who has addresses, as any neighbour would, and counts the stations that answer one question. It needs NET_RAW.
type wire struct {
	ifi      net.Interface
	arp, ip6 *packet.Conn
	own4     netip.Addr
	own6     netip.Addr
	targets  []netip.Addr

	mu        sync.Mutex
	answered  map[netip.Addr]map[[6]byte]bool // since the last question
	questions int
	answers   int
	most      int
}

// listenWire opens the interface from which the addresses are reached.
func listenWire(targets []netip.Addr) (*wire, error) {
	w := &wire{targets: targets, answered: make(map[netip.Addr]map[[6]byte]bool)}
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
	if w.arp, err = packet.Listen(&w.ifi, packet.Raw, etherARP, nil); err != nil {
		return nil, fmt.Errorf("ARP on %s: %w", w.ifi.Name, err)
	}
	if w.ip6, err = packet.Listen(&w.ifi, packet.Raw, etherIPv6, nil); err != nil {
		w.arp.Close()
		return nil, fmt.Errorf("neighbour discovery on %s: %w", w.ifi.Name, err)
	}
	go w.hear(w.arp, w.hearARP)
	go w.hear(w.ip6, w.hearND)
	return w, nil
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
		w.mu.Lock()
		clear(w.answered)
		w.questions += len(w.targets)
		w.mu.Unlock()
		for _, t := range w.targets {
			if t.Is4() {
				f := w.question4(t)
				w.arp.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
			} else {
				f := w.question6(t)
				w.ip6.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
			}
		}
	}
}

// question4 is an ARP request (RFC 826).
func (w *wire) question4(target netip.Addr) []byte {
	f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, w.ifi.HardwareAddr...)
	f = append(f, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
	f = append(f, w.ifi.HardwareAddr...)
	f = append(f, w.own4.AsSlice()...)
	f = append(f, make([]byte, 6)...)
	return append(f, target.AsSlice()...)
}

// question6 is a neighbour solicitation (RFC 4861) to the target's solicited-node group.
func (w *wire) question6(target netip.Addr) []byte {
	t := target.As16()
	group := [16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]}
	message := make([]byte, 8, 32)
	message[0] = 135
	message = append(message, t[:]...)
	message = append(message, 1, 1) // source link-layer address
	message = append(message, w.ifi.HardwareAddr...)

	pseudo := append(w.own6.AsSlice(), group[:]...)
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
	f = append(f, w.own6.AsSlice()...)
	f = append(f, group[:]...)
	return append(f, message...)
}

func (w *wire) hear(conn *packet.Conn, understand func(frame []byte) (netip.Addr, [6]byte, bool)) {
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		addr, mac, ok := understand(buf[:n])
		if !ok {
			continue
		}
		w.mu.Lock()
		if w.answered[addr] == nil {
			w.answered[addr] = make(map[[6]byte]bool)
		}
		w.answered[addr][mac] = true
		w.answers++
		w.most = max(w.most, len(w.answered[addr]))
		w.mu.Unlock()
	}
}

// hearARP understands a reply to this machine.
func (w *wire) hearARP(f []byte) (netip.Addr, [6]byte, bool) {
	if len(f) < 42 || f[21] != 2 || string(f[32:38]) != string(w.ifi.HardwareAddr) {
		return netip.Addr{}, [6]byte{}, false
	}
	return netip.AddrFrom4([4]byte(f[28:32])), [6]byte(f[22:28]), true
}

// hearND understands an advertisement that answers this machine.
func (w *wire) hearND(f []byte) (netip.Addr, [6]byte, bool) {
	if len(f) < 78 || f[20] != 58 || f[54] != 136 || netip.AddrFrom16([16]byte(f[38:54])) != w.own6 {
		return netip.Addr{}, [6]byte{}, false
	}
	return netip.AddrFrom16([16]byte(f[62:78])), [6]byte(f[6:12]), true
}

// report returns what was seen since it was called last: questions, answers, and the most stations that have answered one question.
func (w *wire) report() (questions, answers, most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	questions, answers, most = w.questions, w.answers, w.most
	w.questions, w.answers, w.most = 0, 0, 0
	return
}
