package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
)

// Holder is the cluster, as seen from here: *flotilla.Node is one. If it has a method DrainAddr as Node has, it serves as Config.Drain; if it has
// a method Holder as Node has, an address that is kept without a majority goes as soon as another node is known to have it; if it has a method
// Remark as Node has, its status says what is wrong with an address.
type Holder interface {
	Hold(ctx context.Context, r hold.Role, f func(ctx context.Context, t hold.Tenure) error) error
}

// Quorum says what becomes of an address when its owner cannot reach a majority of the cluster.
type Quorum int

const (
	// Release takes the address away: another node, in the part of the cluster that has the majority, gets it. Without a majority
	// anywhere, nobody has it until there is one.
	Release Quorum = iota

	// Keep leaves it where it is, as VRRP does: with the majority lost for good the last owner goes on answering. In a partition, though, the
	// majority gives it to another node, and both answer, each on its side, until the network is whole again. Then the one without the role
	// lets go.
	Keep
)

// Config describes a floating address, or several that stay together. It should be the same on all nodes but for Priority.
type Config struct {
	// Addr is the address, with the prefix length of its subnet, by which the interface is found. In the kernel it is always a /32
	// or /128, so that it is never chosen as a source and takes no other address along when it leaves.
	Addr netip.Prefix

	// With are further addresses that must be on the same node and interface, as the IPv6 address beside the IPv4 one.
	With []netip.Prefix

	// Interface is the name of the interface. Empty: the one that has an address in Addr's subnet; that is looked for at each turn, because
	// names change, as when a container is connected to its network again.
	Interface string

	// Name is the role's name in the cluster. Empty: "vip/" and Addr's address.
	Name string

	// Priority, NoPreempt and PreemptDelay are as in hold.Role. A node with a higher priority that comes back gets the address by a planned
	// move, after PreemptDelay.
	Priority     int
	NoPreempt    bool
	PreemptDelay time.Duration

	// Group spreads addresses: of nodes with the same priority that one gets the address which has fewest of its group. Empty: "vip", so that three addresses on
	// three nodes are one on each.
	Group string

	// Ready says whether the program can serve now; nil: always. It is called ten times a second and must not block. A node that is not
	// ready hands the address over, and does not compete for it.
	Ready func() bool

	// Drain has the clients of an address go, before it moves by plan, as Node.DrainAddr does, until ctx ends at the latest; nil: that of the Holder, if
	// it has one. It is called twice: for DrainTime while all is as usual, then with little time, when new connections are held back.
	Drain func(ctx context.Context, addr netip.Addr) error

	// DrainTime bounds Drain, and so how long a planned move may take. 0: 5 s. At most 8 s: the cluster waits 10 s.
	DrainTime time.Duration

	// Quorum is what happens without a majority: Release by default.
	Quorum Quorum

	// Probe asks the network for a foreign owner, as RFC 5227 and RFC 4862 do, before the address is put in place. If there is one, the
	// node hands the role over and competes again after ten seconds, later after a minute. It costs a tenth of a second of each take-over.
	Probe bool

	// Conflict is what happens when another machine, which is not of the cluster, claims the address while it is here: Defend by
	// default. Either way Notify, Logger and the cluster's status are told of it, with the other's hardware address. A machine that
	// announces nothing is found out within ten seconds.
	Conflict ConflictPolicy

	// NoGuard does without the guard process, see the package's documentation. Where a program dies then, its address is gone when the lease
	// ends, and moves then.
	NoGuard bool

	// Binder puts the address in place. Nil: the kernel of this machine.
	Binder Binder

	// Notify, if not nil, is told what happens, one thing at a time. It must not block, nor must Logger: meanwhile nothing is done for the addresses, and one that the
	// cluster wants back is given to another node after ten seconds.
	Notify func(Event)

	// Logger receives what happens. Nil: nothing is logged.
	Logger *slog.Logger
}

const (
	drainTime    = 5 * time.Second
	maxDrainTime = 8 * time.Second
	finishTime   = 50 * time.Millisecond  // for requests that are under way when new ones are held back
	readyEvery   = 100 * time.Millisecond // Config.Ready is asked
	maxName      = 256
)

// complete checks c, and puts in what is not said.
func (c *Config) complete(h Holder) error {
	bad := func(field, reason string) error { return fmt.Errorf("vip: Config.%s: %s", field, reason) }
	for i, a := range append([]netip.Prefix{c.Addr}, c.With...) {
		field := "Addr"
		if i > 0 {
			field = fmt.Sprintf("With[%d]", i-1)
		}
		switch addr := a.Addr(); {
		case !a.IsValid():
			return bad(field, "it must be an address with the length of its subnet's prefix, such as 192.0.2.100/24")
		case addr.IsUnspecified(), addr.IsLoopback(), addr.IsMulticast():
			return bad(field, fmt.Sprintf("%v cannot be the address of a host on a network", addr))
		case addr.IsLinkLocalUnicast():
			return bad(field, fmt.Sprintf("%v is a link-local address, which does not float", addr))
		case addr.Is4In6() || addr.Zone() != "":
			return bad(field, fmt.Sprintf("%v must be a plain IPv4 or IPv6 address", addr))
		case addr.Is4() && a.Bits() < 31 && (a.Masked().Addr() == addr || last4(a) == addr):
			return bad(field, fmt.Sprintf("%v is the network's own address in %v, or its broadcast address", addr, a.Masked()))
		}
		if i > 0 && (a.Addr() == c.Addr.Addr() || slices.ContainsFunc(c.With[:i-1], func(p netip.Prefix) bool { return p.Addr() == a.Addr() })) {
			return bad(field, fmt.Sprintf("%v stands there twice", a.Addr()))
		}
	}
	c.With = slices.Clone(c.With)
	if c.Name == "" {
		c.Name = "vip/" + c.Addr.Addr().String()
	}
	if len(c.Name) > maxName || len(c.Group) > maxName {
		return bad("Name", fmt.Sprintf("it and Group have at most %d bytes", maxName))
	}
	if c.Group == "" {
		c.Group = "vip"
	}
	if strings.ContainsAny(c.Interface, "/ ") || len(c.Interface) > 15 {
		return bad("Interface", fmt.Sprintf("%q cannot be the name of an interface", c.Interface))
	}
	if c.PreemptDelay < 0 {
		return bad("PreemptDelay", "it cannot be negative")
	}
	if c.DrainTime < 0 || c.DrainTime > maxDrainTime {
		return bad("DrainTime", fmt.Sprintf("it must be between 0, which stands for %v, and %v", drainTime, maxDrainTime))
	}
	if c.DrainTime == 0 {
		c.DrainTime = drainTime
	}
	if c.Quorum != Release && c.Quorum != Keep {
		return bad("Quorum", fmt.Sprintf("%d is neither Release nor Keep", c.Quorum))
	}
	if c.Conflict != Defend && c.Conflict != Yield {
		return bad("Conflict", fmt.Sprintf("%d is neither Defend nor Yield", c.Conflict))
	}
	if h == nil {
		return errors.New("vip: there is no cluster to hold the address by; Run wants a *flotilla.Node")
	}
	if c.Drain == nil {
		if d, ok := h.(interface {
			DrainAddr(ctx context.Context, addr netip.Addr) error
		}); ok {
			c.Drain = d.DrainAddr
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("role", c.Name)
	if c.Binder == nil {
		c.Binder = kernel{}
	}
	return nil
}

// last4 returns the last address of an IPv4 prefix.
func last4(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// unit returns what a Binder is given.
func (c *Config) unit() Unit {
	return Unit{
		Name: c.Name, Addrs: append([]netip.Prefix{c.Addr}, c.With...), Interface: c.Interface, NoGuard: c.NoGuard, Log: c.Logger,
	}
}
