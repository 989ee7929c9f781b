package vip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/guard"
)

// news is a change that the kernel reports. The zero value means that something else has changed.
type news struct {
	// gone is an address that was removed from an interface.
	gone guard.Addr
	// moved are interfaces that neighbours, or switches on the way, may look for in the wrong
	// place: under another hardware address, or behind another port.
	moved []int
}

// subscription is a subscription to the kernel's news about links and addresses.
type subscription struct {
	file  *os.File
	links map[int]link // as last reported
}

// link is the state of an interface that decides where neighbours find it.
type link struct {
	mac    [32]byte // hardware address; shorter ones are padded
	flags  uint32   // up, and with a carrier
	state  byte     // operational state, RFC 2863
	port   byte     // state of a bridge's port; 0: it is not a port
	master int      // the bridge or bond that it is a port of
	lower  int      // the interface below a VLAN or macvlan
}

// portUnknown is the state of a bridge's port about which nothing is known yet.
const portUnknown = 0xff

// Attributes of links that package unix has no names for: linux/if_link.h.
const (
	brportState      = 1 // within IFLA_PROTINFO
	eventFailover    = 3 // of IFLA_EVENT: a bond uses another port
	eventNotifyPeers = 4 // neighbours should be notified
	eventRejoin      = 5 // multicast groups should be joined again
)

func subscribe() (*subscription, error) {
	fail := func(err error) (*subscription, error) {
		return nil, fmt.Errorf("the kernel does not report changes of interfaces: %w", err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fail(err)
	}
	s := &subscription{file: os.NewFile(uintptr(fd), "netlink"), links: make(map[int]link)}
	err = ignoreRefreshed(fd)
	if err == nil {
		const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	if err == nil { // the links as they are now: the answers are read like news
		dump := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
		binary.NativeEndian.PutUint32(dump, uint32(len(dump)))
		binary.NativeEndian.PutUint16(dump[4:], unix.RTM_GETLINK)
		binary.NativeEndian.PutUint16(dump[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
		err = unix.Sendto(fd, dump, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		s.file.Close()
		return fail(err)
	}
	return s, nil
}

// ignoreRefreshed makes the kernel withhold news about single addresses that are added or renewed.
// That happens several times a second for each floating address.
func ignoreRefreshed(fd int) error {
	var order [2]byte // netlink uses the machine's byte order, filters that of networks
	binary.NativeEndian.PutUint16(order[:], unix.RTM_NEWADDR)
	const offType, offFamily, offPrefix = 4, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr + 1
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: offType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(binary.BigEndian.Uint16(order[:])), SkipTrue: 6},
		bpf.LoadAbsolute{Off: offFamily, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipFalse: 2},
		bpf.LoadAbsolute{Off: offPrefix, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 32, SkipTrue: 3, SkipFalse: 2},
		bpf.LoadAbsolute{Off: offPrefix, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 128, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 20},
		bpf.RetConstant{},
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
}

// read calls onNews until news are lost or the file's deadline passes.
func (s *subscription) read(onNews func(news)) {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.file.Read(buf)
		if err != nil {
			return
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return
		}
		for _, m := range messages {
			s.onMessage(m, onNews)
		}
	}
}

func (s *subscription) onMessage(m syscall.NetlinkMessage, onNews func(news)) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if moved, ok := s.readLink(&m); ok {
			onNews(news{moved: moved})
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, err := readAddr(&m)
		switch {
		case err != nil:
		case m.Header.Type == unix.RTM_DELADDR:
			onNews(news{gone: a})
		case !a.Prefix.IsSingleIP(): // an interface has got another subnet
			onNews(news{})
		}
	}
}

// readLink records what a message says about an interface. It returns the interfaces that are found
// elsewhere because of it, and whether anything may have changed.
func (s *subscription) readLink(m *syscall.NetlinkMessage) (moved []int, ok bool) {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return nil, false
	}
	index := int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	before, known := s.links[index]
	now := link{flags: binary.NativeEndian.Uint32(m.Data[8:]) & (unix.IFF_UP | unix.IFF_LOWER_UP), port: before.port}
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return nil, true
	}
	notify, elsewhere := false, false
	for _, a := range attrs {
		number := func() (n uint32) {
			if len(a.Value) >= 4 {
				n = binary.NativeEndian.Uint32(a.Value)
			}
			return n
		}
		switch a.Attr.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case unix.IFLA_ADDRESS:
			copy(now.mac[:], a.Value)
		case unix.IFLA_OPERSTATE:
			if len(a.Value) > 0 {
				now.state = a.Value[0]
			}
		case unix.IFLA_MASTER:
			now.master = int(number())
		case unix.IFLA_LINK:
			now.lower = int(number())
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case unix.IFLA_EVENT:
			e := number()
			notify = e == eventFailover || e == eventNotifyPeers || e == eventRejoin
		case unix.IFLA_PROTINFO:
			if state, ok := portState(a.Value); ok {
				now.port = state
			}
		}
	}
	if elsewhere {
		now.lower = 0
	}
	if now.master == 0 {
		now.port = 0
	} else if now.master != before.master && now.port == 0 {
		now.port = portUnknown
	}
	bridge := m.Data[0] == unix.AF_BRIDGE // about the interface as a port, and not complete
	switch {
	case m.Header.Type == unix.RTM_DELLINK && !bridge:
		delete(s.links, index)
	case m.Header.Type == unix.RTM_DELLINK:
		now = before
		now.master, now.port = 0, 0
		s.links[index] = now
	case bridge:
		now.lower = before.lower
		s.links[index] = now
	default:
		s.links[index] = now
	}
	if !known && m.Header.Type == unix.RTM_NEWLINK {
		if now.master == 0 {
			return nil, true
		}
	} else if _, here := s.links[index]; here && now == before && !notify {
		return nil, true
	}
	found := make(map[int]bool)
	s.above(index, found)
	if before.master != 0 {
		s.above(before.master, found)
	}
	return slices.Collect(maps.Keys(found)), true
}

// above adds an interface, and all interfaces that are reached through it, to found.
func (s *subscription) above(index int, found map[int]bool) {
	if index == 0 || found[index] {
		return
	}
	found[index] = true
	s.above(s.links[index].master, found)
	for i, l := range s.links {
		if l.lower == index {
			s.above(i, found)
		}
	}
}

// portState returns the state of a bridge's port, from IFLA_PROTINFO.
func portState(nested []byte) (state byte, ok bool) {
	for len(nested) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(nested))
		if n < unix.SizeofRtAttr || n > len(nested) {
			return 0, false
		}
		if binary.NativeEndian.Uint16(nested[2:])&^unix.NLA_F_NESTED == brportState && n > unix.SizeofRtAttr {
			return nested[unix.SizeofRtAttr], true
		}
		nested = nested[min((n+3)&^3, len(nested)):]
	}
	return 0, false
}

// readAddr returns the address in a message, with its interface.
func readAddr(m *syscall.NetlinkMessage) (guard.Addr, error) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return guard.Addr{}, errors.New("a message about an address is too short")
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return guard.Addr{}, err
	}
	var addr []byte
	for _, a := range attrs {
		// IFA_ADDRESS is the address of a point-to-point link's other end if there is an IFA_LOCAL
		// too.
		if t := a.Attr.Type; t == unix.IFA_LOCAL || t == unix.IFA_ADDRESS && addr == nil {
			addr = bytes.Clone(a.Value)
		}
	}
	ip, ok := netip.AddrFromSlice(addr)
	if !ok {
		return guard.Addr{}, errors.New("a message about an address has none")
	}
	prefix := netip.PrefixFrom(ip.Unmap(), int(m.Data[1]))
	return guard.Addr{Index: int(binary.NativeEndian.Uint32(m.Data[4:])), Prefix: prefix}, nil
}
