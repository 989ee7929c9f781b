package fence

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
)

// Fence guards addresses for one program. Its methods may be called from several goroutines. The
// table stays in the kernel after the program's end, until Close or Remove. The addresses are
// closed when the lease has ended.
type Fence struct {
	mu       sync.Mutex // held during system calls: it serializes the use of link
	link     *link
	layout   *layout
	verifier *verifier
	closed   bool
	devices  []*device
	states   map[netip.Addr]standing
	until    time.Time // of the lease
	priority int
}

// Open makes the table of a program. The name may have letters, digits, '-', '_' and '.'. Open
// tries out what the kernel can do. If that is not enough, the error wraps ErrUnsupported and says
// what is missing.
//
// If a former process of the program has left a table, Open replaces it in one step by a closed
// one. What was guarded stays guarded, until Unguard or Close. Two living programs of the same name
// would take each other's table.
func Open(name string) (*Fence, error) { return open(name, 0) }

// open is Open in the network namespace that is open as the file ns.
func open(name string, ns int) (*Fence, error) {
	table, err := tableName(name)
	if err != nil {
		return nil, err
	}
	l, layout := &link{ns: ns}, newLayout(table)
	f := &Fence{
		link: l, layout: layout, verifier: &verifier{link: l, layout: layout},
		states: make(map[netip.Addr]standing), priority: firstPriority,
	}
	if err := try(l, table); err != nil {
		f.link.close()
		return nil, err
	}
	if err := f.inherit(); err != nil {
		f.link.close()
		return nil, explain("look for a table of a former process", err)
	}
	if err := f.rebuild(f.devices); err != nil {
		f.link.close()
		return nil, err
	}
	return f, nil
}

// Remove removes the table of a program. It is for another process, which has seen the program die
// and has removed its addresses. It returns nil if there is no such table.
func Remove(name string) error { return remove(name, 0) }

func remove(name string, ns int) error {
	table, err := tableName(name)
	if err != nil {
		return err
	}
	l := link{ns: ns}
	defer l.close()
	return explain("remove the table "+table, l.ask(func(c *nftables.Conn) error {
		newLayout(table).remove(c)
		return c.Flush()
	}))
}

// inherit reads what is guarded from an existing table.
func (f *Fence) inherit() error {
	return f.link.ask(func(c *nftables.Conn) error {
		chains, err := f.verifier.chains(c)
		if err != nil {
			return err
		}
		byIndex := make(map[int]*device)
		for _, ch := range chains {
			if ch.Priority != nil {
				f.priority = max(f.priority, int(*ch.Priority)+1)
			}
			if index, name, ok := parseChain(ch.Name); ok {
				byIndex[index] = &device{index: index, name: name, addrs: make(map[netip.Addr]bool)}
			}
		}
		if len(byIndex) == 0 {
			return nil
		}
		sets, err := c.GetSets(f.layout.table)
		if err != nil {
			return err
		}
		for _, s := range sets {
			if s.Name != f.layout.sets[setGuarded4].Name && s.Name != f.layout.sets[setGuarded6].Name {
				continue
			}
			elements, err := c.GetSetElements(s)
			if err != nil {
				return err
			}
			for _, e := range elements {
				if index, a, ok := parseGuardKey(e.Key); ok && byIndex[index] != nil {
					byIndex[index].addrs[a] = true
				}
			}
		}
		for _, d := range byIndex {
			if len(d.addrs) > 0 {
				f.devices = append(f.devices, d)
			}
		}
		return nil
	})
}

// find returns the devices that exist, with their present names and numbers. It follows a device
// that was renamed by its number, and one that has gone and come back by its name.
func (f *Fence) find(devices []*device) (here []*device, err error) {
	merged := make(map[int]*device)
	for _, d := range devices {
		index := d.index
		name, err := f.link.name(index)
		if errors.Is(err, syscall.ENODEV) {
			name = d.name
			index, err = f.link.index(name)
		}
		switch m := merged[index]; {
		case errors.Is(err, syscall.ENODEV):
		case err != nil:
			return nil, err
		case m != nil:
			maps.Copy(m.addrs, d.addrs)
		default:
			merged[index] = &device{index: index, name: name, addrs: maps.Clone(d.addrs)}
			here = append(here, merged[index])
		}
	}
	return here, nil
}

// rebuild replaces the table, in one transaction, by one for the devices, and keeps these if it
// succeeds. It also keeps a device that does not exist at present.
func (f *Fence) rebuild(devices []*device) error {
	here, err := f.find(devices)
	if err != nil {
		return err
	}
	chains := f.layout.common()
	for _, d := range here {
		chains = append(chains, f.layout.ingress(d, f.priority), f.layout.egress(d, f.priority))
	}
	err = f.link.transact(func(c *nftables.Conn, at *instant) error {
		if err := f.layout.replace(c); err != nil {
			return err
		}
		f.layout.add(c, chains)
		for _, d := range here {
			if err := f.layout.fillGuarded(c, d); err != nil {
				return err
			}
		}
		if err := f.layout.fillStates(c, f.states, at); err != nil {
			return err
		}
		return f.layout.fillLease(c, f.until, at)
	})
	if err != nil {
		return explain("make the table "+f.layout.table.Name, err)
	}
	f.priority++
	for _, d := range devices {
		if !slices.ContainsFunc(here, func(h *device) bool { return h.index == d.index || h.name == d.name }) {
			here = append(here, d)
		}
	}
	f.devices = here
	return f.verifier.recall(chains)
}

// Guard guards addresses on an interface: they are Closed there until Set says otherwise. Addresses
// that are guarded already stay as they are. If the interface has come back, or has another name,
// Guard with its present name also guards everything that was guarded there.
func (f *Fence) Guard(ifname string, addrs ...netip.Addr) error {
	addrs, err := f.lockFor(addrs)
	if err != nil {
		return err
	}
	defer f.mu.Unlock()
	index, err := f.link.index(ifname)
	if err != nil {
		return err
	}
	added := &device{index: index, name: ifname, addrs: make(map[netip.Addr]bool)}
	for _, a := range addrs {
		added.addrs[a] = true
	}
	i := slices.IndexFunc(f.devices, func(d *device) bool { return d.index == index && d.name == ifname })
	if i < 0 || f.verifier.check(f.devices) != nil {
		// This also finds interfaces that have come back or were renamed.
		return f.rebuild(append(slices.Clone(f.devices), added))
	}
	err = f.link.transact(func(c *nftables.Conn, _ *instant) error { return f.layout.fillGuarded(c, added) })
	if err == nil {
		maps.Copy(f.devices[i].addrs, added.addrs)
	}
	return explain("guard addresses on "+ifname, err)
}

// Unguard stops guarding addresses, on all interfaces. Everything passes for them then.
func (f *Fence) Unguard(addrs ...netip.Addr) error {
	addrs, err := f.lockFor(addrs)
	if err != nil {
		return err
	}
	defer f.mu.Unlock()
	devices := make([]*device, 0, len(f.devices))
	for _, d := range f.devices {
		left := maps.Clone(d.addrs)
		for _, a := range addrs {
			delete(left, a)
		}
		if len(left) > 0 {
			devices = append(devices, &device{index: d.index, name: d.name, addrs: left})
		}
	}
	before := f.states
	f.states = maps.Clone(before)
	for _, a := range addrs {
		delete(f.states, a)
	}
	if err := f.rebuild(devices); err != nil {
		f.states = before
		return err
	}
	return nil
}

// Guarded returns the guarded addresses in order. After Open these are the ones that a former
// process of the program has left.
func (f *Fence) Guarded() []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[netip.Addr]bool)
	for _, d := range f.devices {
		maps.Copy(all, d.addrs)
	}
	return slices.SortedFunc(maps.Keys(all), netip.Addr.Compare)
}

// Set says what passes for addresses while the lease lasts. After limit the kernel closes them; a
// limit of 0 means until the next Set. All addresses change in one step.
func (f *Fence) Set(s State, limit time.Duration, addrs ...netip.Addr) error {
	now := time.Now()
	if s < Closed || s > Muted {
		return fmt.Errorf("there is no state %d", s)
	}
	if limit < 0 {
		return fmt.Errorf("the limit %v is below 0", limit)
	}
	addrs, err := f.lockFor(addrs)
	if err != nil {
		return err
	}
	defer f.mu.Unlock()
	states := maps.Clone(f.states)
	for _, a := range addrs {
		if !slices.ContainsFunc(f.devices, func(d *device) bool { return d.addrs[a] }) {
			return fmt.Errorf("%v: %w", a, ErrNotGuarded)
		}
		states[a] = standing{state: s}
		if limit > 0 {
			states[a] = standing{state: s, until: now.Add(limit)}
		}
	}
	err = f.link.transact(func(c *nftables.Conn, at *instant) error {
		// Before Linux 6.12 an element's timeout cannot be changed, and deleting an element that
		// has just ended is an error. So the sets are written as a whole.
		for _, set := range f.layout.sets[setPass4:] {
			c.FlushSet(set)
		}
		return f.layout.fillStates(c, states, at)
	})
	if err == nil {
		f.states = states
	}
	return explain("set what passes", err)
}

// Extend says that the program's lease lasts until then, by the monotonic clock: until must be
// derived from time.Now. Until then the states of Set count. Afterwards every guarded address is
// Closed, whatever happens to the program. An until in the past closes at once. An until before
// that of an earlier call counts too.
//
// After an error the kernel has the lease of this call or that of the one before.
func (f *Fence) Extend(until time.Time) error {
	if err := f.lock(); err != nil {
		return err
	}
	defer f.mu.Unlock()
	err := f.link.transact(func(c *nftables.Conn, at *instant) error {
		c.FlushSet(f.layout.sets[setLease])
		return f.layout.fillLease(c, until, at)
	})
	// After an error a table that is rebuilt must have the shorter one of the two leases.
	if err == nil || until.Before(f.until) {
		f.until = until
	}
	return explain("extend the lease", err)
}

// Check compares the table, its chains and rules, what is guarded, and the interfaces with what was
// made. If anything differs the error wraps ErrTampered.
func (f *Fence) Check() error {
	if err := f.lock(); err != nil {
		return err
	}
	defer f.mu.Unlock()
	return f.verifier.check(f.devices)
}

// Restore rebuilds the table as it was, in one step, with the lease of Extend and the states of
// Set. It follows an interface that was renamed and guards one that has come back. An interface
// that does not exist is guarded again when it comes back and Restore or Guard is called.
func (f *Fence) Restore() error {
	if err := f.lock(); err != nil {
		return err
	}
	defer f.mu.Unlock()
	return f.rebuild(f.devices)
}

// Close removes the table: nothing is guarded any more. Call it when the addresses have been
// removed from this machine.
func (f *Fence) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	err := f.link.ask(func(c *nftables.Conn) error {
		f.layout.remove(c)
		return c.Flush()
	})
	return errors.Join(explain("remove the table "+f.layout.table.Name, err), f.link.close())
}

// lock locks f. It returns an error if f is closed.
func (f *Fence) lock() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return fmt.Errorf("the fence is closed: %w", net.ErrClosed)
	}
	return nil
}

// lockFor locks f for a call about addresses, and returns these as they appear in packets.
func (f *Fence) lockFor(addrs []netip.Addr) ([]netip.Addr, error) {
	addrs, err := plain(addrs)
	if err != nil {
		return nil, err
	}
	return addrs, f.lock()
}

// plain returns addresses as they appear in packets.
func plain(addrs []netip.Addr) ([]netip.Addr, error) {
	out := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		if !a.IsValid() {
			return nil, errors.New("the zero address cannot be guarded")
		}
		out[i] = a.Unmap().WithZone("")
	}
	return out, nil
}

// Names returns the names of the programs whose tables are in the kernel, dead programs included.
func Names() ([]string, error) {
	var l link
	defer l.close()
	var names []string
	err := l.ask(func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(nftables.TableFamilyNetdev)
		for _, t := range tables {
			if name, ok := strings.CutPrefix(t.Name, tablePrefix); ok {
				names = append(names, name)
			}
		}
		return err
	})
	return names, explain("list the tables", err)
}
