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

// firstPriority is the priority of the chains of a new table, early among the chains of the same hook.
// Chains that replace others come after them: a packet that passes both while the kernel switches over
// finds rules in the old ones or in the new ones.
const firstPriority = -600

// Fence guards addresses for one program. Its methods may be called from several goroutines. The table
// stays in the kernel after the program's end, until Close or Remove. The addresses are closed when
// the lease has ended.
type Fence struct {
	mu       sync.Mutex // held during system calls: it serializes the use of link
	link     link
	layout   *layout
	closed   bool
	devices  []*device
	states   map[netip.Addr]standing
	until    time.Time // of the lease
	priority int
	made     map[string][]string // chains with their rules, as the kernel returned them after they were made
	looked   bool                // everything was as it should be at the generation seen
	seen     uint32              // of the ruleset; link counts our own transactions since
}

// Open makes the table of a program. The name may have letters, digits, '-', '_' and '.'. Open tries
// out what the kernel can do. If that is not enough, the error wraps ErrUnsupported and says what is
// missing.
//
// If a former process of the program has left a table, Open replaces it in one step by a closed one.
// What was guarded stays guarded, until Unguard or Close. Two living programs of the same name would
// take each other's table.
func Open(name string) (*Fence, error) { return open(name, 0) }

// open is Open in the network namespace that is open as the file ns.
func open(name string, ns int) (*Fence, error) {
	table, err := tableName(name)
	if err != nil {
		return nil, err
	}
	f := &Fence{link: link{ns: ns}, layout: newLayout(table), states: make(map[netip.Addr]standing), priority: firstPriority}
	if err := try(&f.link, table); err != nil {
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

// Remove removes the table of a program. It is for another process, which has seen the program die and
// has removed its addresses. It returns nil if there is no such table.
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
		chains, err := f.chains(c)
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

// chains returns the chains of the table; none if there is no table.
func (f *Fence) chains(c *nftables.Conn) ([]*nftables.Chain, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(chains, func(ch *nftables.Chain) bool {
		return ch.Table == nil || ch.Table.Name != f.layout.table.Name
	}), nil
}

// find returns the devices that exist, with their present names and numbers. It follows a device that
// was renamed by its number, and one that has gone and come back by its name.
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
	return f.recall(chains)
}

// recall reads the chains back from the kernel, compares them, and keeps the result for Check.
func (f *Fence) recall(chains ruleset) error {
	made, err := f.dump()
	if err != nil {
		return explain("read back the table "+f.layout.table.Name, err)
	}
	for _, ch := range chains {
		var want []string
		for _, rule := range ch.rules {
			t, err := text(rule)
			if err != nil {
				return err
			}
			want = append(want, t)
		}
		if got, ok := made[ch.Name]; !ok || !slices.EqualFunc(got, want, strings.HasSuffix) {
			return fmt.Errorf("the kernel holds other rules in the chain %s than it was given: %q, not %q", ch.Name, got, want)
		}
	}
	f.made = made
	return nil
}

// dump returns the chains of the table with their rules. A rule is its handle, which changes when the
// rule is replaced, its owner, and its text.
func (f *Fence) dump() (map[string][]string, error) {
	made := make(map[string][]string)
	err := f.link.ask(func(c *nftables.Conn) error {
		chains, err := f.chains(c)
		if err != nil {
			return err
		}
		for _, ch := range chains {
			rules, err := c.GetRules(f.layout.table, ch)
			if err != nil {
				return err
			}
			made[ch.Name] = nil
			for _, r := range rules {
				t, err := text(r.Exprs)
				if err != nil {
					return err
				}
				made[ch.Name] = append(made[ch.Name], fmt.Sprintf("%d %s ", r.Handle, r.UserData)+t)
			}
		}
		return nil
	})
	return made, err
}

// Guard guards addresses on an interface: they are Closed there until Set says otherwise. Addresses
// that are guarded already stay as they are. If the interface has come back, or has another name, Guard
// with its present name also guards everything that was guarded there.
func (f *Fence) Guard(ifname string, addrs ...netip.Addr) error {
	addrs, err := plain(addrs)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed()
	}
	index, err := f.link.index(ifname)
	if err != nil {
		return err
	}
	added := &device{index: index, name: ifname, addrs: make(map[netip.Addr]bool)}
	for _, a := range addrs {
		added.addrs[a] = true
	}
	i := slices.IndexFunc(f.devices, func(d *device) bool { return d.index == index && d.name == ifname })
	if i < 0 || f.check() != nil {
		return f.rebuild(append(slices.Clone(f.devices), added)) // it finds interfaces that have come back or were renamed
	}
	err = f.link.transact(func(c *nftables.Conn, _ *instant) error { return f.layout.fillGuarded(c, added) })
	if err == nil {
		maps.Copy(f.devices[i].addrs, added.addrs)
	}
	return explain("guard addresses on "+ifname, err)
}

// Unguard stops guarding addresses, on all interfaces. Everything passes for them then.
func (f *Fence) Unguard(addrs ...netip.Addr) error {
	addrs, err := plain(addrs)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed()
	}
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

// Guarded returns the guarded addresses in order. After Open these are the ones that a former process
// of the program has left.
func (f *Fence) Guarded() []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[netip.Addr]bool)
	for _, d := range f.devices {
		maps.Copy(all, d.addrs)
	}
	return slices.SortedFunc(maps.Keys(all), netip.Addr.Compare)
}

// Set says what passes for addresses while the lease lasts. After limit the kernel closes them; a limit
// of 0 means until the next Set. All addresses change in one step.
func (f *Fence) Set(s State, limit time.Duration, addrs ...netip.Addr) error {
	now := time.Now()
	if s < Closed || s > Muted {
		return fmt.Errorf("there is no state %d", s)
	}
	if limit < 0 {
		return fmt.Errorf("the limit %v is below 0", limit)
	}
	addrs, err := plain(addrs)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed()
	}
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
		// Before Linux 6.12 an element's timeout cannot be changed, and deleting an element that has just
		// ended is an error. So the sets are written as a whole.
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

// Extend says that the program's lease lasts until then, by the monotonic clock: until must be derived
// from time.Now. Until then the states of Set count. Afterwards every guarded address is Closed,
// whatever happens to the program. An until in the past closes at once. An until before that of an
// earlier call counts too.
//
// After an error the kernel has the lease of this call or that of the one before.
func (f *Fence) Extend(until time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed()
	}
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
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed()
	}
	return f.check()
}

// checks is how often check looks, because a transaction of another program may come between the parts
// of a look.
const checks = 3

func (f *Fence) check() (err error) {
	for range checks {
		if err = f.look(); err == nil {
			return nil
		}
	}
	return err
}

// look compares everything with what was made. It can skip that if the kernel has counted only our own
// transactions since the last time.
func (f *Fence) look() error {
	for _, d := range f.devices {
		switch name, err := f.link.name(d.index); {
		case err != nil:
			return fmt.Errorf("%w: the interface %s is not there any more: %w", ErrTampered, d.name, err)
		case name != d.name:
			return fmt.Errorf("%w: the interface %s is called %s now", ErrTampered, d.name, name)
		}
	}
	gen, err := f.link.generation()
	if err != nil {
		return explain("ask for the generation of the ruleset", err)
	}
	if f.looked && !f.link.unsure && gen == f.seen+f.link.own {
		return nil
	}
	f.looked, f.link.unsure, f.link.own, f.seen = false, false, 0, gen
	made, err := f.dump()
	if err != nil {
		return explain("read the table "+f.layout.table.Name, err)
	}
	if len(made) == 0 {
		return fmt.Errorf("%w: there is no table %s any more", ErrTampered, f.layout.table.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(f.made)) {
		if got, ok := made[name]; !ok {
			return fmt.Errorf("%w: there is no chain %s any more", ErrTampered, name)
		} else if !slices.Equal(got, f.made[name]) {
			return fmt.Errorf("%w: the chain %s has other rules", ErrTampered, name)
		}
	}
	err = f.lookGuarded()
	f.looked = err == nil
	return err
}

// lookGuarded compares what is guarded with what was made.
func (f *Fence) lookGuarded() error {
	want := make(map[uint32]map[string]bool)
	for _, id := range []uint32{setGuarded4, setGuarded6, setAnnounce4} {
		want[id] = make(map[string]bool)
	}
	for _, d := range f.devices {
		four, six, announce := guardElements(d)
		for id, elements := range map[uint32][]nftables.SetElement{setGuarded4: four, setGuarded6: six, setAnnounce4: announce} {
			for _, e := range elements {
				want[id][string(e.Key)] = true
			}
		}
	}
	return f.link.ask(func(c *nftables.Conn) error {
		for id, keys := range want {
			elements, err := c.GetSetElements(f.layout.sets[id])
			if err != nil {
				return fmt.Errorf("%w: read the set %s: %w", ErrTampered, f.layout.sets[id].Name, err)
			}
			got := make(map[string]bool)
			for _, e := range elements {
				got[string(e.Key)] = true
			}
			if !maps.Equal(got, keys) {
				return fmt.Errorf("%w: the set %s has other elements", ErrTampered, f.layout.sets[id].Name)
			}
		}
		return nil
	})
}

// Restore rebuilds the table as it was, in one step, with the lease of Extend and the states of Set. It
// follows an interface that was renamed and guards one that has come back. An interface that does not
// exist is guarded again when it comes back and Restore or Guard is called.
func (f *Fence) Restore() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed()
	}
	return f.rebuild(f.devices)
}

// Close removes the table: nothing is guarded any more. Call it when the addresses have been removed
// from this machine.
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

func errClosed() error { return fmt.Errorf("the fence is closed: %w", net.ErrClosed) }

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
