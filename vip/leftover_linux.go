package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/rights"
)

// clean removes what a former process of the program has left of the addresses. It returns an error
// if somebody else has put one of them there, and does not touch that one.
func clean(addrs []netip.Addr, log *slog.Logger) error {
	return eachAddr(addrs, func(l netlink.Link, a netlink.Addr, left bool) error {
		if !left {
			return fmt.Errorf("%v is configured on %s, and not by this program: remove it there, "+
				"because only the cluster should put it anywhere", prefixOf(a.IPNet), l.Attrs().Name)
		}
		return removeFrom(l, a, log)
	})
}

// removeLeft removes those addresses that a program has left.
func removeLeft(addrs []netip.Addr, log *slog.Logger) error {
	return eachAddr(addrs, func(l netlink.Link, a netlink.Addr, left bool) error {
		if !left {
			return nil
		}
		return removeFrom(l, a, log)
	})
}

func removeFrom(l netlink.Link, a netlink.Addr, log *slog.Logger) error {
	if err := netlink.AddrDel(l, &a); err != nil && !gone(err) {
		what := fmt.Sprintf("remove %v, which a former process of the program has left on %s",
			prefixOf(a.IPNet), l.Attrs().Name)
		return rights.Explain(what, err, rights.NetAdmin)
	}
	log.Info("removed an address that a former process of the program had left",
		"addr", prefixOf(a.IPNet), "interface", l.Attrs().Name)
	return nil
}

// eachAddr calls f for those addresses that are on an interface. left says whether a program with
// this package may have left it: it is alone in its prefix and has a lifetime.
func eachAddr(addrs []netip.Addr, f func(l netlink.Link, a netlink.Addr, left bool) error) error {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return rights.Explain("list the interfaces", err)
	}
	for _, l := range links {
		all, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return rights.Explain("list the addresses of "+l.Attrs().Name, err)
		}
		for _, a := range all {
			prefix := prefixOf(a.IPNet)
			if !slices.Contains(addrs, prefix.Addr()) {
				continue
			}
			if err := f(l, a, prefix.IsSingleIP() && a.Flags&unix.IFA_F_PERMANENT == 0); err != nil {
				return err
			}
		}
	}
	return nil
}
