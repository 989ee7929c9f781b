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

// Numbers of sets within a transaction. The package nftables would count them in a variable that all programs' connections write.
const (
	setLease     uint32 = iota + 1
	setGuarded4         // interface . address: what is guarded at all
	setGuarded6         //
	setAnnounce4        // address . address: sender and target of an announcement
	setPass4            // what is not Closed
	setPass6            //
	setNew4             // what takes new connections
	setNew6             //
	setAnswer4          // what answers ARP
	setAnswer6          // what answers neighbour solicitations
)

// leaseKey is the one key that the set of the lease may hold.
const leaseKey = 1

// Offsets of what is looked at, in its header.
const (
	arpSender, arpTarget          = 14, 24
	ip4Source, ip4Destination     = 12, 16
	ip6Source, ip6Destination     = 8, 24
	tcpFlags, tcpSYN, tcpSYNorACK = 13, 0x02, 0x12
	icmpType, ndTarget            = 0, 8
	routerSolicitation            = 133 // 0b10000101
	neighbourSolicitation         = 135 // 0b10000111
	neighbourAdvertisement        = 136
	solicitations                 = 0xfd // the mask under which these two are the first
)

// Registers: the first, of 16 bytes, and what begins 4 bytes into it. The parts of a concatenated key lie side by side.
const (
	reg  = unix.NFT_REG_1
	reg4 = unix.NFT_REG32_01
)

// layout is the table with its sets, as the package nftables wants it described.
type layout struct {
	table *nftables.Table
	sets  []*nftables.Set // by number, from 1
	tag   []byte          // goes with each rule: whose it is. nft shows it as a comment
}

func newLayout(name string) *layout {
	l := &layout{
		table: &nftables.Table{Name: name, Family: nftables.TableFamilyNetdev},
		sets:  make([]*nftables.Set, setAnswer6+1),
		// Another life of the program makes the same rules, with the same handles.
		tag: userdata.AppendString(nil, userdata.TypeComment, "life "+rand.Text()),
	}
	set := func(id uint32, name string, timeout bool, key ...nftables.SetDatatype) {
		// It fails for more than five parts of a key only.
		l.sets[id] = &nftables.Set{Table: l.table, ID: id, Name: name, HasTimeout: timeout, KeyType: nftables.MustConcatSetType(key...)}
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

// elementsOfMessage is how many are put into one message: an attribute that holds elements has at most 64 KiB.
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

// replace has the table removed, if it is there, and made with its sets, empty, in one transaction.
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

// remove has the table removed. To remove what is not there is an error; to add what is there is none.
func (l *layout) remove(c *nftables.Conn) {
	c.AddTable(l.table)
	c.DelTable(l.table)
}

// device is an interface and what is guarded there.
type device struct {
	index int
	name  string
	addrs map[netip.Addr]bool
}

// Names of the chains of a device. They say which it is, since the package nftables does not decode that of a chain that is there.
const (
	ingressPrefix = "ingress_"
	egressPrefix  = "egress_"
)

func (d *device) suffix() string { return strconv.Itoa(d.index) + "_" + d.name }

// parseChain returns the device that a chain was made for.
func parseChain(chain string) (index int, name string, ok bool) {
	rest, ok := strings.CutPrefix(chain, ingressPrefix)
	if !ok {
		return 0, "", false
	}
	number, name, ok := strings.Cut(rest, "_")
	index, err := strconv.Atoi(number)
	return index, name, ok && err == nil && name != ""
}

// ruleset is what there is but sets: chains in the order they are made in, with their rules.
type ruleset []chain

type chain struct {
	*nftables.Chain
	rules [][]expr.Any
}

// common returns the chains that all devices share. One that is jumped to is before the one that does.
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
		// A solicitation, like an ARP request, tells who receives it the hardware address of its source.
		add("ip6_out",
			l.leaseless(),
			then(drop(), network(ip6Source, 16, reg), l.stranger(setPass6)),
			then(drop(), icmp(solicitations, routerSolicitation), network(ip6Source, 16, reg), l.stranger(setAnswer6)),
		),
		add("in",
			then(to("arp_in"), protocol(unix.ETH_P_ARP), meta(expr.MetaKeyIIF, reg), arp(arpTarget, 4, reg4), l.member(setGuarded4, reg)),
			then(to("ip_in"), protocol(unix.ETH_P_IP), meta(expr.MetaKeyIIF, reg), network(ip4Destination, 4, reg4), l.member(setGuarded4, reg)),
			then(by("nd"), protocol(unix.ETH_P_IPV6), icmp(0xff, neighbourSolicitation), meta(expr.MetaKeyIIF, reg), transport(ndTarget, 16, reg4), l.member(setGuarded6, reg)),
			then(to("ip6_in"), protocol(unix.ETH_P_IPV6), meta(expr.MetaKeyIIF, reg), network(ip6Destination, 16, reg4), l.member(setGuarded6, reg)),
		),
		add("out",
			then(to("arp_out"), protocol(unix.ETH_P_ARP), meta(expr.MetaKeyOIF, reg), arp(arpSender, 4, reg4), l.member(setGuarded4, reg)),
			then(to("ip_out"), protocol(unix.ETH_P_IP), meta(expr.MetaKeyOIF, reg), network(ip4Source, 4, reg4), l.member(setGuarded4, reg)),
			then(by("nd"), protocol(unix.ETH_P_IPV6), icmp(0xff, neighbourAdvertisement), meta(expr.MetaKeyOIF, reg), transport(ndTarget, 16, reg4), l.member(setGuarded6, reg)),
			then(to("ip6_out"), protocol(unix.ETH_P_IPV6), meta(expr.MetaKeyOIF, reg), network(ip6Source, 16, reg4), l.member(setGuarded6, reg)),
		),
	}
}

// ingress and egress return the chain of a device that the common ones hang on.
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

// add has chains made, and rules put into them.
func (l *layout) add(c *nftables.Conn, chains ruleset) {
	for _, ch := range chains {
		c.AddChain(ch.Chain)
		for _, exprs := range ch.rules {
			c.AddRule(&nftables.Rule{Table: l.table, Chain: ch.Chain, Exprs: exprs, UserData: l.tag})
		}
	}
}

// Verdicts, and pieces of rules. A piece either goes on to the next or ends the rule.

func drop() *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictDrop} }

func accept() *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictAccept} }

func to(chain string) *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

func by(chain string) *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain} }

// then returns the rule that has the verdict if all pieces say yes.
func then(verdict *expr.Verdict, pieces ...[]expr.Any) []expr.Any {
	return append(join(pieces...), verdict)
}

func meta(key expr.MetaKey, r uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: r}}
}

func network(offset, length, r uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: r, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}}
}

// arp is network, under the name of what is in it.
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

// masked says yes if the byte in the register has the value under the mask.
func masked(mask, value byte) []expr.Any {
	return join([]expr.Any{&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{mask}, Xor: []byte{0}}}, is(value))
}

// syn says yes to the first segment of a TCP connection.
func syn() []expr.Any {
	return join(meta(expr.MetaKeyL4PROTO, reg), is(unix.IPPROTO_TCP), transport(tcpFlags, 1, reg), masked(tcpSYNorACK, tcpSYN))
}

// icmp says yes to ICMPv6 of a type.
func icmp(mask, typ byte) []expr.Any {
	return join(meta(expr.MetaKeyL4PROTO, reg), is(unix.IPPROTO_ICMPV6), transport(icmpType, 1, reg), masked(mask, typ))
}

// member says yes if what is in the register is in the set, stranger if it is not.
func (l *layout) member(id, r uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: r, SetName: l.sets[id].Name, SetID: id}}
}

func (l *layout) stranger(id uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg, SetName: l.sets[id].Name, SetID: id, Invert: true}}
}

// leaseless is the rule that drops all while there is no lease.
func (l *layout) leaseless() []expr.Any {
	return then(drop(), []expr.Any{&expr.Immediate{Register: reg, Data: number(leaseKey)}}, l.stranger(setLease))
}

// number is one as registers hold it.
func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// guardKey is the key of an address that is guarded on an interface.
func guardKey(index int, a netip.Addr) []byte { return append(number(uint32(index)), a.AsSlice()...) }

// parseGuardKey undoes guardKey.
func parseGuardKey(key []byte) (index int, a netip.Addr, ok bool) {
	if len(key) < 4 {
		return 0, a, false
	}
	a, ok = netip.AddrFromSlice(key[4:])
	return int(binary.NativeEndian.Uint32(key)), a, ok
}

// guardElements returns the elements of setGuarded4, setGuarded6 and setAnnounce4 for addresses on a device.
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

// fillGuarded puts what is guarded on a device into its sets. What is there already stays.
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

// standing is what Set said of an address. An address without is Closed.
type standing struct {
	state State
	until time.Time // zero: until Set says otherwise
}

// fillStates puts what Set said into its sets.
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

// fillLease puts the lease into its set, if there is one.
func (l *layout) fillLease(c *nftables.Conn, until time.Time, at *instant) error {
	rest := at.rest(until)
	if rest == 0 {
		return nil
	}
	return l.fill(c, setLease, []nftables.SetElement{{Key: number(leaseKey), Timeout: rest}})
}

// text returns the rule as the kernel gives it back: without the numbers that sets have within a transaction.
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
