package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/netlab/span"
)

// kernels reads the address events of several namespaces. It reads all of them on one thread, so it
// records events in the order in which they happened, except events within microseconds.
type kernels struct {
	fds    []int // one socket per node
	stop   [2]int
	notify func()
	done   chan struct{}
	ready  chan struct{} // closed when every kernel has listed its addresses

	mu    sync.Mutex
	err   error
	addrs map[netip.Addr][]holding // per node
}

// holding is the history of one address at one node.
type holding struct {
	keys  map[addrKey]bool // the copies that it has now
	spans []held
}

// addrKey tells copies of an address in one kernel apart.
type addrKey struct {
	link   uint32
	prefix uint8
}

// held is a period that may still last.
type held struct {
	span.Span
	open bool
}

func watchKernels(nodes []*Host, addrs []netip.Addr, notify func()) (*kernels, error) {
	k := &kernels{
		notify: notify,
		done:   make(chan struct{}),
		ready:  make(chan struct{}),
		addrs:  make(map[netip.Addr][]holding),
	}
	for _, a := range addrs {
		k.addrs[a] = make([]holding, len(nodes))
		for i := range nodes {
			k.addrs[a][i].keys = make(map[addrKey]bool)
		}
	}
	if err := unix.Pipe2(k.stop[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if err := n.Do(func() error { return k.listen() }); err != nil {
			for _, fd := range append(k.fds, k.stop[:]...) {
				unix.Close(fd)
			}
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	go k.run()
	select {
	case <-k.ready:
		return k, nil
	case <-time.After(5 * time.Second):
		return nil, errors.Join(errors.New("the kernels do not list their addresses"), k.close())
	}
}

// listen opens a socket in the namespace of the calling thread, and asks for the addresses there.
func (k *kernels) listen() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	k.fds = append(k.fds, fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
		return err
	}
	groups := uint32(unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return err
	}
	dump := make([]byte, unix.NLMSG_HDRLEN+unix.SizeofIfAddrmsg)
	header := syscall.NlMsghdr{Len: uint32(len(dump)), Type: unix.RTM_GETADDR, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP}
	putHeader(dump, header)
	return unix.Sendto(fd, dump, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (k *kernels) run() {
	defer close(k.done)
	poll := make([]unix.PollFd, 0, len(k.fds)+1)
	for _, fd := range append(slices.Clone(k.fds), k.stop[0]) {
		poll = append(poll, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	buf := make([]byte, 64<<10)
	dumping := len(k.fds)
	if dumping == 0 {
		close(k.ready)
	}
	for {
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			k.fail(err)
			return
		}
		if poll[len(k.fds)].Revents != 0 {
			return
		}
		now := time.Now()
		for i, fd := range k.fds {
			if poll[i].Revents == 0 {
				continue
			}
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err != nil {
				k.fail(fmt.Errorf("events of node %d were lost: %w", i, err))
				continue
			}
			ended, err := k.take(i, buf[:n], now)
			if err != nil {
				k.fail(err)
			}
			if ended {
				if dumping--; dumping == 0 {
					close(k.ready)
				}
			}
		}
	}
}

func (k *kernels) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = errors.Join(k.err, err)
}

// take records the events of a node. It returns true at the end of the list of its addresses.
func (k *kernels) take(node int, b []byte, now time.Time) (ended bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return false, err
	}
	for _, m := range messages {
		switch m.Header.Type {
		case unix.NLMSG_DONE:
			ended = true
		case unix.NLMSG_ERROR:
			err = errors.Join(err, fmt.Errorf("node %d does not list its addresses", node))
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			addr, key, usable, perr := parseAddr(&m)
			err = errors.Join(err, perr)
			if perr == nil && k.set(node, addr, key, usable && m.Header.Type == unix.RTM_NEWADDR, now) {
				k.notify()
			}
		}
	}
	return ended, err
}

// set records whether a node has a copy of an address. It returns true if that changes whether the
// node has the address at all.
func (k *kernels) set(node int, addr netip.Addr, key addrKey, has bool, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	all, watched := k.addrs[addr]
	if !watched {
		return false
	}
	h := &all[node]
	before := len(h.keys) > 0
	if has {
		h.keys[key] = true
	} else {
		delete(h.keys, key)
	}
	switch after := len(h.keys) > 0; {
	case after && !before:
		h.spans = append(h.spans, held{span.Span{From: now}, true})
	case before && !after:
		last := &h.spans[len(h.spans)-1]
		last.To, last.open = now, false
	default:
		return false
	}
	return true
}

// spans returns for each node the periods in which it had the address. A period that still lasts
// ends now.
func (k *kernels) spans(addr netip.Addr, now time.Time) [][]held {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all [][]held
	for _, h := range k.addrs[addr] {
		spans := slices.Clone(h.spans)
		if n := len(spans); n > 0 && spans[n-1].open {
			spans[n-1].To = now
		}
		all = append(all, spans)
	}
	return all
}

func (k *kernels) close() error {
	unix.Close(k.stop[1])
	<-k.done
	for _, fd := range append(k.fds, k.stop[0]) {
		unix.Close(fd)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// parseAddr reads an event. An address is not usable while duplicate address detection checks it,
// or after it was refused.
func parseAddr(m *syscall.NetlinkMessage) (addr netip.Addr, key addrKey, usable bool, err error) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return addr, key, false, errors.New("an event of an address is too short")
	}
	key = addrKey{link: nativeUint32(m.Data[4:]), prefix: m.Data[1]}
	flags := uint32(m.Data[2])
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return addr, key, false, err
	}
	local := false
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFA_LOCAL:
			addr, _ = netip.AddrFromSlice(a.Value)
			local = true
		case unix.IFA_ADDRESS:
			if !local {
				addr, _ = netip.AddrFromSlice(a.Value)
			}
		case unix.IFA_FLAGS:
			flags = nativeUint32(a.Value)
		}
	}
	checking := flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	return addr, key, !checking && flags&unix.IFA_F_DADFAILED == 0, nil
}

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

func putHeader(b []byte, h syscall.NlMsghdr) {
	binary.NativeEndian.PutUint32(b, h.Len)
	binary.NativeEndian.PutUint16(b[4:], h.Type)
	binary.NativeEndian.PutUint16(b[6:], h.Flags)
}
