package fence

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Numbers of sets within a transaction. Package nftables would take them from a variable that all
// connections share.
const (
	setLease     uint32 = iota + 1
	setGuarded4         // interface . address: what is guarded
	setGuarded6         //
	setAnnounce4        // address . address: sender and target of an announcement
	setPass4            // addresses that are not Closed
	setPass6            //
	setNew4             // addresses that accept new connections
	setNew6             //
	setAnswer4          // addresses that answer ARP
	setAnswer6          // addresses that answer neighbour solicitations
)

// firstPriority is the priority of the chains of a new table, early among the chains of the same
// hook. Chains that replace others come after them: a packet that passes both while the kernel
// switches over finds rules in the old ones or in the new ones.
const firstPriority = -600

// leaseKey is the only key of the set of the lease.
const leaseKey = 1

// Offsets of fields in their headers.
const (
	arpSender, arpTarget          = 14, 24
	ip4Source, ip4Destination     = 12, 16
	ip6Source, ip6Destination     = 8, 24
	tcpFlags, tcpSYN, tcpSYNorACK = 13, 0x02, 0x12
	icmpType, ndTarget            = 0, 8
	routerSolicitation            = 133 // 0b10000101
	neighbourSolicitation         = 135 // 0b10000111
	neighbourAdvertisement        = 136
	solicitations                 = 0xfd // the mask under which these two equal the first
)

// Registers: the first one, of 16 bytes, and the one that begins 4 bytes into it. The parts of a
// concatenated key lie side by side.
const (
	reg  = unix.NFT_REG_1
	reg4 = unix.NFT_REG32_01
)

// layout describes the table and its sets for package nftables.
type layout struct {
	table *nftables.Table
	sets  []*nftables.Set // by number, from 1
	tag   []byte          // the owner of each rule; nft shows it as a comment
}

func newLayout(name string) *layout {
	l := &layout{
		table: &nftables.Table{Name: name, Family: nftables.TableFamilyNetdev},
		sets:  make([]*nftables.Set, setAnswer6+1),
		// Another process of the program makes the same rules, with the same handles.
		tag: userdata.AppendString(nil, userdata.TypeComment, "life "+rand.Text()),
	}
	set := func(id uint32, name string, timeout bool, key ...nftables.SetDatatype) {
		// MustConcatSetType panics only for more than five parts.
		l.sets[id] = &nftables.Set{
			Table: l.table, ID: id, Name: name, HasTimeout: timeout, KeyType: nftables.MustConcatSetType(key...),
		}
	}
	set(setLease, "lease", true, nftables.TypeMark)
	l.sets[setLease].KeyByteOrder = binaryutil.NativeEndian // for nft to show
	set(setGuarded4, "guarded4", false, nftables.TypeIFIndex, nftables.TypeIPAddr)
	set(setGuarded6, "guarded6", false, nftables.TypeIFIndex, nftables.TypeIP6Addr)
	set(setAnnounce4, "announce4", false, nftables.TypeIPAddr, nftables.TypeIPAddr)
	set(setPass4, "pass4", true, nftables.TypeIPAddr)
	set(setPass6, "pass6", true, nftables.TypeIP6Addr)
	set(setNew4, "new4", true, nftables.TypeIPAddr)
	set(setNew6, "new6", true, nftables.TypeIP6Addr)
	set(setAnswer4, "answer4", true, nftables.TypeIPAddr)
	set(setAnswer6, "answer6", true, nftables.TypeIP6Addr)
	return l
}

// elementsOfMessage is how many elements go into one message: an attribute holds at most 64 KiB.
const elementsOfMessage = 400

// fill puts elements into a set.
func (l *layout) fill(c *nftables.Conn, id uint32, elements []nftables.SetElement) error {
	for len(elements) > 0 {
		n := min(len(elements), elementsOfMessage)
		if err := c.SetAddElements(l.sets[id], elements[:n]); err != nil {
			return err
		}
		elements = elements[n:]
	}
	return nil
}

// replace queues that the table is removed, if it is there, and made again with empty sets.
func (l *layout) replace(c *nftables.Conn) error {
	l.remove(c)
	c.AddTable(l.table)
	for _, s := range l.sets[1:] {
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	return nil
}

// remove queues that the table is removed. Removing a table that is not there would be an error,
// and adding one that is there is not.
func (l *layout) remove(c *nftables.Conn) {
	c.AddTable(l.table)
	c.DelTable(l.table)
}

// device is an interface with the addresses that are guarded there.
type device struct {
	index int
	name  string
	addrs map[netip.Addr]bool
}

// Names of the chains of a device. They contain the device, because package nftables does not
// decode the device of an existing chain.
const (
	ingressPrefix = "ingress_"
	egressPrefix  = "egress_"
)

func (d *device) suffix() string { return strconv.Itoa(d.index) + "_" + d.name }

// parseChain returns the device in the name of a chain.
func parseChain(chain string) (index int, name string, ok bool) {
	rest, ok := strings.CutPrefix(chain, ingressPrefix)
	if !ok {
		return 0, "", false
	}
	number, name, ok := strings.Cut(rest, "_")
	index, err := strconv.Atoi(number)
	return index, name, ok && err == nil && name != ""
}

// ruleset is the table without sets: the chains with their rules, in the order in which they are
// made.
type ruleset []chain

type chain struct {
	*nftables.Chain
	rules [][]expr.Any
}

// common returns the chains that all devices share. The target of a jump is before its source.
func (l *layout) common() ruleset {
	add := func(name string, rules ...[]expr.Any) chain {
		return chain{&nftables.Chain{Name: name, Table: l.table}, rules}
	}
	return ruleset{
		add("arp_in",
			then(accept(), arp(arpSender, 4, reg), arp(arpTarget, 4, reg4), l.member(setAnnounce4, reg)),
			l.leaseless(),
			then(drop(), arp(arpTarget, 4, reg), l.stranger(setAnswer4)),
		),
		add("arp_out",
			l.leaseless(),
			then(drop(), arp(arpSender, 4, reg), l.stranger(setAnswer4)),
		),
		add("ip_in",
			l.leaseless(),
			then(drop(), network(ip4Destination, 4, reg), l.stranger(setPass4)),
			then(drop(), syn(), network(ip4Destination, 4, reg), l.stranger(setNew4)),
		),
		add("ip_out",
			l.leaseless(),
			then(drop(), network(ip4Source, 4, reg), l.stranger(setPass4)),
		),
		add("nd",
			l.leaseless(),
			then(drop(), transport(ndTarget, 16, reg), l.stranger(setAnswer6)),
		),
		add("ip6_in",
			l.leaseless(),
			then(drop(), network(ip6Destination, 16, reg), l.stranger(setPass6)),
			then(drop(), syn(), network(ip6Destination, 16, reg), l.stranger(setNew6)),
		),
		// A solicitation, like an ARP request, tells its receiver the hardware address of the
		// source.
		add("ip6_out",
			l.leaseless(),
			then(drop(), network(ip6Source, 16, reg), l.stranger(setPass6)),
			then(drop(), icmp(solicitations, routerSolicitation), network(ip6Source, 16, reg), l.stranger(setAnswer6)),
		),
		add("in",
			l.guarded4(to("arp_in"), protocol(unix.ETH_P_ARP), expr.MetaKeyIIF, arp(arpTarget, 4, reg4)),
			l.guarded4(to("ip_in"), protocol(unix.ETH_P_IP), expr.MetaKeyIIF, network(ip4Destination, 4, reg4)),
			l.guarded6(by("nd"), nd(neighbourSolicitation), expr.MetaKeyIIF, transport(ndTarget, 16, reg4)),
			l.guarded6(to("ip6_in"), protocol(unix.ETH_P_IPV6), expr.MetaKeyIIF, network(ip6Destination, 16, reg4)),
		),
		add("out",
			l.guarded4(to("arp_out"), protocol(unix.ETH_P_ARP), expr.MetaKeyOIF, arp(arpSender, 4, reg4)),
			l.guarded4(to("ip_out"), protocol(unix.ETH_P_IP), expr.MetaKeyOIF, network(ip4Source, 4, reg4)),
			l.guarded6(by("nd"), nd(neighbourAdvertisement), expr.MetaKeyOIF, transport(ndTarget, 16, reg4)),
			l.guarded6(to("ip6_out"), protocol(unix.ETH_P_IPV6), expr.MetaKeyOIF, network(ip6Source, 16, reg4)),
		),
	}
}

// ingress and egress return the chains of a device that lead to the common ones.
func (l *layout) ingress(d *device, priority int) chain {
	return l.base(ingressPrefix+d.suffix(), d.name, nftables.ChainHookIngress, priority, "in")
}

func (l *layout) egress(d *device, priority int) chain {
	return l.base(egressPrefix+d.suffix(), d.name, nftables.ChainHookEgress, priority, "out")
}

func (l *layout) base(name, dev string, hook *nftables.ChainHook, priority int, target string) chain {
	policy := nftables.ChainPolicyAccept
	return chain{&nftables.Chain{
		Name: name, Table: l.table, Type: nftables.ChainTypeFilter, Hooknum: hook, Device: dev,
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority)), Policy: &policy,
	}, [][]expr.Any{{to(target)}}}
}

// add queues that chains are made with their rules.
func (l *layout) add(c *nftables.Conn, chains ruleset) {
	for _, ch := range chains {
		c.AddChain(ch.Chain)
		for _, exprs := range ch.rules {
			c.AddRule(&nftables.Rule{Table: l.table, Chain: ch.Chain, Exprs: exprs, UserData: l.tag})
		}
	}
}

// Verdicts, and conditions of rules. A condition that does not hold ends its rule.

func drop() *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictDrop} }

func accept() *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictAccept} }

func to(chain string) *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

func by(chain string) *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain} }

// then returns the rule that has the verdict if all conditions hold.
func then(verdict *expr.Verdict, conditions ...[]expr.Any) []expr.Any {
	return append(join(conditions...), verdict)
}

func meta(key expr.MetaKey, r uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: r}}
}

func network(offset, length, r uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: r, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}}
}

// arp is network for an ARP header.
func arp(offset, length, r uint32) []expr.Any { return network(offset, length, r) }

func transport(offset, length, r uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: r, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}}
}

func is(data ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}}
}

func join(pieces ...[]expr.Any) (all []expr.Any) {
	for _, p := range pieces {
		all = append(all, p...)
	}
	return all
}

func protocol(ethertype uint16) []expr.Any {
	return join(meta(expr.MetaKeyPROTOCOL, reg), is(binary.BigEndian.AppendUint16(nil, ethertype)...))
}

// masked holds if the byte in the register has the value under the mask.
func masked(mask, value byte) []expr.Any {
	and := &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{mask}, Xor: []byte{0}}
	return join([]expr.Any{and}, is(value))
}

// syn holds for the first segment of a TCP connection.
func syn() []expr.Any {
	tcp := join(meta(expr.MetaKeyL4PROTO, reg), is(unix.IPPROTO_TCP))
	return join(tcp, transport(tcpFlags, 1, reg), masked(tcpSYNorACK, tcpSYN))
}

// icmp holds for ICMPv6 of a type, under a mask.
func icmp(mask, typ byte) []expr.Any {
	return join(meta(expr.MetaKeyL4PROTO, reg), is(unix.IPPROTO_ICMPV6), transport(icmpType, 1, reg), masked(mask, typ))
}

// nd holds for a neighbour discovery message of a type.
func nd(typ byte) []expr.Any { return join(protocol(unix.ETH_P_IPV6), icmp(0xff, typ)) }

// guarded4 returns a rule for packets that fulfil the conditions in what. The rule has the verdict
// if the address of the packet is guarded on its interface. addr loads the address, key the
// interface.
func (l *layout) guarded4(verdict *expr.Verdict, what []expr.Any, key expr.MetaKey, addr []expr.Any) []expr.Any {
	return then(verdict, what, meta(key, reg), addr, l.member(setGuarded4, reg))
}

// guarded6 is guarded4 for IPv6.
func (l *layout) guarded6(verdict *expr.Verdict, what []expr.Any, key expr.MetaKey, addr []expr.Any) []expr.Any {
	return then(verdict, what, meta(key, reg), addr, l.member(setGuarded6, reg))
}

// member holds if the value in the register is in the set, stranger if it is not.
func (l *layout) member(id, r uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: r, SetName: l.sets[id].Name, SetID: id}}
}

func (l *layout) stranger(id uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg, SetName: l.sets[id].Name, SetID: id, Invert: true}}
}

// leaseless is the rule that drops everything while there is no lease.
func (l *layout) leaseless() []expr.Any {
	return then(drop(), []expr.Any{&expr.Immediate{Register: reg, Data: number(leaseKey)}}, l.stranger(setLease))
}

// number returns n as registers hold it.
func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// guardKey returns the key of an address that is guarded on an interface.
func guardKey(index int, a netip.Addr) []byte { return append(number(uint32(index)), a.AsSlice()...) }

// parseGuardKey is the inverse of guardKey.
func parseGuardKey(key []byte) (index int, a netip.Addr, ok bool) {
	if len(key) < 4 {
		return 0, a, false
	}
	a, ok = netip.AddrFromSlice(key[4:])
	return int(binary.NativeEndian.Uint32(key)), a, ok
}

// guardElements returns the elements of setGuarded4, setGuarded6 and setAnnounce4 for addresses on
// a device.
func guardElements(d *device) (four, six, announce []nftables.SetElement) {
	for a := range d.addrs {
		e := nftables.SetElement{Key: guardKey(d.index, a)}
		if a.Is4() {
			four = append(four, e)
			announce = append(announce, nftables.SetElement{Key: bytes.Repeat(a.AsSlice(), 2)})
		} else {
			six = append(six, e)
		}
	}
	return four, six, announce
}

// fillGuarded adds what is guarded on a device to the sets.
func (l *layout) fillGuarded(c *nftables.Conn, d *device) error {
	four, six, announce := guardElements(d)
	if err := l.fill(c, setGuarded4, four); err != nil {
		return err
	}
	if err := l.fill(c, setGuarded6, six); err != nil {
		return err
	}
	return l.fill(c, setAnnounce4, announce)
}

// standing is the state that Set gave an address. An address without one is Closed.
type standing struct {
	state State
	until time.Time // zero: until the next Set
}

// fillStates adds the states of addresses to the sets.
func (l *layout) fillStates(c *nftables.Conn, states map[netip.Addr]standing, at *instant) error {
	elements := make([][]nftables.SetElement, len(l.sets))
	for a, s := range states {
		e := nftables.SetElement{Key: a.AsSlice()}
		if !s.until.IsZero() {
			if e.Timeout = at.rest(s.until); e.Timeout == 0 {
				continue
			}
		}
		pass, fresh, answer := setPass4, setNew4, setAnswer4
		if a.Is6() {
			pass, fresh, answer = setPass6, setNew6, setAnswer6
		}
		switch s.state {
		case Serving:
			elements[fresh] = append(elements[fresh], e)
			fallthrough
		case Quiet:
			elements[answer] = append(elements[answer], e)
			fallthrough
		case Muted:
			elements[pass] = append(elements[pass], e)
		}
	}
	for id, e := range elements {
		if err := l.fill(c, uint32(id), e); err != nil {
			return err
		}
	}
	return nil
}

// fillLease adds the lease to its set, if it lasts.
func (l *layout) fillLease(c *nftables.Conn, until time.Time, at *instant) error {
	rest := at.rest(until)
	if rest == 0 {
		return nil
	}
	return l.fill(c, setLease, []nftables.SetElement{{Key: number(leaseKey), Timeout: rest}})
}

// text returns a rule as the kernel returns it: without the numbers of sets within a transaction.
func text(rule []expr.Any) (string, error) {
	var b strings.Builder
	for _, e := range rule {
		if lookup, ok := e.(*expr.Lookup); ok {
			plain := *lookup
			plain.SetID = 0
			e = &plain
		}
		data, err := expr.Marshal(byte(nftables.TableFamilyNetdev), e)
		if err != nil {
			return "", fmt.Errorf("encode a rule: %w", err)
		}
		b.Write(data)
	}
	return b.String(), nil
}
