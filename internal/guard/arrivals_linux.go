package guard

import (
	"encoding/binary"
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// arrivals observes addresses that are added to interfaces. A nil one observes nothing.
type arrivals struct {
	sock int
	buf  []byte
}

// newArrivals opens a socket that observes nothing yet.
func newArrivals() (*arrivals, error) {
	sock, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(sock, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(sock)
		return nil, err
	}
	return &arrivals{sock, make([]byte, 64<<10)}, nil
}

// fd returns the file to poll.
func (a *arrivals) fd() int32 {
	if a == nil {
		return -1
	}
	return int32(a.sock)
}

// listen starts or stops the observation. It is not on all the time, because each renewal of an
// address counts as an arrival too.
func (a *arrivals) listen(on bool) {
	if a == nil {
		return
	}
	option := unix.NETLINK_DROP_MEMBERSHIP
	if on {
		option = unix.NETLINK_ADD_MEMBERSHIP
	}
	for _, group := range []int{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR} {
		if err := unix.SetsockoptInt(a.sock, unix.SOL_NETLINK, option, group); err != nil {
			say("addresses that appear after the deadline are not seen: %v", err)
		}
	}
}

// any reads what has been observed. It reports whether an address may have appeared on one of the
// interfaces.
func (a *arrivals) any(addrs []Addr) bool {
	found := false
	for {
		n, _, err := unix.Recvfrom(a.sock, a.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS): // some were lost
			found = true
			continue
		case err != nil:
			return found
		}
		messages, err := syscall.ParseNetlinkMessage(a.buf[:n])
		if err != nil {
			found = true
			continue
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
				continue
			}
			index := int(binary.NativeEndian.Uint32(m.Data[4:])) // of struct ifaddrmsg
			found = found || slices.ContainsFunc(addrs, func(a Addr) bool { return a.Index == index })
		}
	}
}
