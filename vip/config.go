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

// Holder is the cluster. *flotilla.Node is one. Run uses further methods of a Node if the Holder
// has them:
//
//   - HoldPublic takes the place of Hold: see PublicHolder.
//   - DrainAddr is the default of Config.Drain.
//   - Holder reports that another node has the role, so that an address that is kept without a
//     majority goes.
//   - Remark puts problems with an address into the cluster's status.
//   - ObserveAddresses tells the cluster what happens to the addresses: see hold.Observer.
//
// A type that wraps a Node should embed it, so that it has these methods too.
type Holder interface {
	Hold(ctx context.Context, r hold.Role, f func(ctx context.Context, t hold.Tenure) error) error
}

// PublicHolder is what a Holder also implements if it knows that an address may outlast the
// process. Run then calls HoldPublic in place of Hold. Another Holder may grant the role again
// while the kernel of a dead process still has the address. Run logs a warning about such a Holder,
// and does not accept Keep with it.
type PublicHolder interface {
	HoldPublic(ctx context.Context, r hold.Role, p hold.Public, f func(ctx context.Context, t hold.Tenure) error) error
}

// Quorum says what happens to an address when its owner cannot reach a majority of the cluster.
type Quorum int

const (
	// Release removes the address. Another node, in the part of the cluster that has the majority,
	// gets it. Without a majority anywhere, no node has it until there is one.
	Release Quorum = iota

	// Keep leaves the address where it is, as VRRP does. If the majority is lost for good, the last
	// owner goes on answering. In a partition, however, the majority grants the address to another
	// node. Both then answer, each on its side, until the partition heals. The one without the role
	// then lets go.
	Keep
)

// Config describes a floating address, or several that stay together. It should be the same on all
// nodes, except for Priority.
type Config struct {
	// Addr is the address, with the prefix length of its subnet. The subnet is used to find the
	// interface. In the kernel the address is always a /32 or /128: so it is never chosen as a
	// source, and it removes no other address when it leaves.
	Addr netip.Prefix

	// With are further addresses that must be on the same node and interface, such as the IPv6
	// address that belongs to an IPv4 one.
	With []netip.Prefix

	// Interface is the name of the interface. Empty means the one that has an address in Addr's
	// subnet. Run looks for that one each time, because names can change, for example when a
	// container is reconnected to its network.
	Interface string

	// Name is the role's name in the cluster. Empty means "vip/" followed by Addr's address.
	Name string

	// Priority, NoPreempt and PreemptDelay are as in hold.Role. A node with a higher priority that
	// comes back gets the address by a planned move, after PreemptDelay.
	Priority     int
	NoPreempt    bool
	PreemptDelay time.Duration

	// Group spreads addresses over nodes. Among nodes with the same priority, the one that has the
	// fewest addresses of the group gets the address. Empty means "vip": three addresses on three
	// nodes are then one on each.
	Group string

	// Ready reports whether the program can serve now. Nil means always. Run calls it ten times a
	// second; it must not block. A node that is not ready hands the address over and does not
	// compete for it.
	Ready func() bool

	// Drain disconnects the clients of an address before a planned move, as Node.DrainAddr does. It
	// returns when ctx ends, or earlier. Nil means the Holder's DrainAddr, if it has that method.
	// Drain is called twice: with DrainTime while everything works as usual, then with little time
	// while new connections are held back.
	Drain func(ctx context.Context, addr netip.Addr) error

	// DrainTime bounds Drain, and so the duration of a planned move. Zero means 5 s. At most 8 s
	// are possible: the cluster waits 10 s.
	DrainTime time.Duration

	// Quorum says what happens without a majority. The default is Release.
	Quorum Quorum

	// Probe asks the network for another owner, as RFC 5227 and RFC 4862 do, before the address is
	// put in place. If there is one, the node hands the role over. It competes again after ten
	// seconds, later after a minute. Probe adds a tenth of a second to each take-over.
	Probe bool

	// Conflict says what happens when a machine outside the cluster claims the address while it is
	// here. The default is Defend. In both cases Notify, Logger and the cluster's status name the
	// other machine's hardware address. A machine that announces nothing is found within ten
	// seconds.
	Conflict ConflictPolicy

	// NoGuard does without the guard process; see the package's documentation. If a program dies
	// then, its address stays until the lease ends, and moves only then.
	NoGuard bool

	// Binder puts the address in place. Nil means the kernel of this machine.
	Binder Binder

	// Notify receives events, one at a time; nil means none. Notify and Logger must not block.
	// While they do, Run does nothing for the addresses, and the cluster gives an address that it
	// wants back to another node after ten seconds.
	Notify func(Event)

	// Logger receives what happens. If it is nil, Run logs nothing.
	Logger *slog.Logger
}

const (
	drainTime    = 5 * time.Second
	maxDrainTime = 8 * time.Second
	maxName      = 256
)

// complete checks c and fills in the defaults.
func (c *Config) complete(h Holder) error {
	if err := c.check(); err != nil {
		return err
	}
	if h == nil {
		return errors.New("vip: there is no cluster to hold the address by; pass a *flotilla.Node to Run")
	}
	if _, ok := h.(PublicHolder); !ok && c.Quorum == Keep {
		return wrong("Quorum", "Keep needs a Holder that is a PublicHolder; pass a *flotilla.Node to Run")
	}
	if c.Drain == nil {
		if d, ok := h.(interface {
			DrainAddr(ctx context.Context, addr netip.Addr) error
		}); ok {
			c.Drain = d.DrainAddr
		}
	}
	return nil
}

// wrong is the error of a field.
func wrong(field, reason string) error { return fmt.Errorf("vip: Config.%s: %s", field, reason) }

// check checks what does not depend on the Holder, and fills in the defaults.
func (c *Config) check() error {
	for i, a := range c.addrs() {
		field := "Addr"
		if i > 0 {
			field = fmt.Sprintf("With[%d]", i-1)
		}
		switch addr := a.Addr(); {
		case !a.IsValid():
			return wrong(field, "it must be an address with the length of its subnet's prefix, such as 192.0.2.100/24")
		case addr.IsUnspecified(), addr.IsLoopback(), addr.IsMulticast():
			return wrong(field, fmt.Sprintf("%v cannot be the address of a host on a network", addr))
		case addr.IsLinkLocalUnicast():
			return wrong(field, fmt.Sprintf("%v is a link-local address, which does not float", addr))
		case addr.Is4In6() || addr.Zone() != "":
			return wrong(field, fmt.Sprintf("%v must be a plain IPv4 or IPv6 address", addr))
		case addr.Is4() && a.Bits() < 31 && (a.Masked().Addr() == addr || last4(a) == addr):
			return wrong(field, fmt.Sprintf("%v is the network's own address in %v, or its broadcast address",
				addr, a.Masked()))
		}
		if slices.ContainsFunc(c.addrs()[:i], func(p netip.Prefix) bool { return p.Addr() == a.Addr() }) {
			return wrong(field, fmt.Sprintf("%v is named twice", a.Addr()))
		}
	}
	c.With = slices.Clone(c.With)
	if c.Name == "" {
		c.Name = "vip/" + c.Addr.Addr().String()
	}
	if len(c.Name) > maxName || len(c.Group) > maxName {
		return wrong("Name", fmt.Sprintf("it and Group have at most %d bytes", maxName))
	}
	if c.Group == "" {
		c.Group = "vip"
	}
	if strings.ContainsAny(c.Interface, "/ ") || len(c.Interface) > 15 {
		return wrong("Interface", fmt.Sprintf("%q cannot be the name of an interface", c.Interface))
	}
	if c.PreemptDelay < 0 {
		return wrong("PreemptDelay", "it cannot be negative")
	}
	if c.DrainTime < 0 || c.DrainTime > maxDrainTime {
		return wrong("DrainTime", fmt.Sprintf("it must be between 0, which means %v, and %v", drainTime, maxDrainTime))
	}
	if c.DrainTime == 0 {
		c.DrainTime = drainTime
	}
	if c.Quorum != Release && c.Quorum != Keep {
		return wrong("Quorum", fmt.Sprintf("%d is neither Release nor Keep", c.Quorum))
	}
	if c.Conflict != Defend && c.Conflict != Yield {
		return wrong("Conflict", fmt.Sprintf("%d is neither Defend nor Yield", c.Conflict))
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

// addrs returns all addresses.
func (c *Config) addrs() []netip.Prefix { return append([]netip.Prefix{c.Addr}, c.With...) }

// unit returns what a Binder is given.
func (c *Config) unit() Unit {
	return Unit{Name: c.Name, Addrs: c.addrs(), Interface: c.Interface, NoGuard: c.NoGuard, Log: c.Logger}
}
