package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// asker asks from a client, over and over, who has some addresses, and records who answers which question.
//
// The questions are broadcasts (IPv6: to the solicited-node group) like those of a client that knows nothing, and nobody's cache has a
// part in it. To know which question an answer is to, each asks for the answer at a hardware address of its own; the asking protocol address is
// nobody's either, so that what nodes learn from the questions concerns no host of the lab.
type asker struct {
	client   *Host
	number   int
	interval time.Duration
	arp, nd  *os.File
	stop     chan struct{}
	running  sync.WaitGroup

	mu        sync.Mutex
	err       error
	questions map[netip.Addr][]asked
	numbers   []numbered // by the question's number
	heard     []Announcement
}

// asked is a question, and who answered.
type asked struct {
	at   time.Time
	macs []hardware
}

// numbered finds a question by its number.
type numbered struct {
	addr  netip.Addr
	index int
}

// settled is how old a question is before it counts: until then its answers may be under way.
const settled = 50 * time.Millisecond

func newAsker(c *Host, number int, interval time.Duration, addrs []netip.Addr) (*asker, error) {
	a := &asker{client: c, number: number, interval: interval, stop: make(chan struct{}), questions: make(map[netip.Addr][]asked)}
	for _, addr := range addrs {
		a.questions[addr] = nil // what is announced counts before the first question, too
	}
	var err error
	if a.arp, err = openPacketOf(c, etherARP); err != nil {
		return nil, err
	}
	if a.nd, err = openPacketOf(c, etherIPv6); err != nil {
		a.arp.Close()
		return nil, err
	}
	a.running.Go(func() { a.ask(addrs) })
	a.running.Go(func() { a.listen(a.arp) })
	a.running.Go(func() { a.listen(a.nd) })
	return a, nil
}

// openPacketOf opens a socket that sees the frames of a kind that arrive at a host, for whomever they are.
func openPacketOf(h *Host, kind uint16) (f *os.File, err error) {
	err = h.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: kind<<8 | kind>>8, Ifindex: h.eth.Attrs().Index})
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		f = os.NewFile(uintptr(fd), h.Name)
		return nil
	})
	return f, err
}

// noLink reports whether a frame could not be sent because the interface is down, or has no carrier.
func noLink(err error) bool {
	return errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOBUFS)
}

// tag is the hardware address at which the answer to a question is asked for.
func (a *asker) tag(number int) hardware {
	return hardware{0x02, 0x5a, byte(a.number), byte(number >> 16), byte(number >> 8), byte(number)}
}

func (a *asker) ask(addrs []netip.Addr) {
	ticker := time.NewTicker(a.interval)
	defer ticker.Stop()
	asker4 := netip.AddrFrom4([4]byte{10, 77, 0, byte(201 + a.number)})
	asker6 := netip.MustParseAddr(fmt.Sprintf("fd77::%d", 201+a.number))
	for {
		for _, addr := range addrs {
			asker := asker4
			if addr.Is6() {
				asker = asker6
			}
			if _, err := a.arp.Write(question(hardware(a.client.MAC), a.next(addr), asker, addr)); err != nil && !noLink(err) && !errors.Is(err, os.ErrClosed) {
				a.fail(err)
			}
		}
		select {
		case <-ticker.C:
		case <-a.stop:
			return
		}
	}
}

// next notes a question, and returns its tag.
func (a *asker) next(addr netip.Addr) hardware {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.numbers = append(a.numbers, numbered{addr, len(a.questions[addr])})
	a.questions[addr] = append(a.questions[addr], asked{at: time.Now()})
	return a.tag(len(a.numbers) - 1)
}

func (a *asker) listen(f *os.File) {
	buf := make([]byte, 2048)
	for {
		n, err := f.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, unix.ENETDOWN):
			continue
		case err != nil:
			a.fail(err)
			return
		}
		if c, ok := parseClaim(buf[:n]); ok {
			a.hear(c)
		}
	}
}

// hear notes an answer or an announcement.
func (a *asker) hear(c claim) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, watched := a.questions[c.addr]; !watched {
		return
	}
	if !c.asked {
		a.heard = append(a.heard, Announcement{
			At: now, Client: a.client.Name, Addr: c.addr, Owner: a.client.lab.byMAC(c.mac), Form: c.form, Override: c.override, Target: c.target,
		})
		return
	}
	number := int(c.to[3])<<16 | int(c.to[4])<<8 | int(c.to[5])
	if number >= len(a.numbers) || c.to != a.tag(number) || a.numbers[number].addr != c.addr {
		return // to somebody else
	}
	q := &a.questions[c.addr][a.numbers[number].index]
	if !slices.Contains(q.macs, c.mac) {
		q.macs = append(q.macs, c.mac)
	}
}

func (a *asker) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = errors.Join(a.err, fmt.Errorf("%s: %w", a.client.Name, err))
}

func (a *asker) close() error {
	close(a.stop)
	err := errors.Join(a.arp.Close(), a.nd.Close())
	a.running.Wait()
	return errors.Join(err, a.err)
}

// within returns the questions of a period that have settled.
func (a *asker) within(addr netip.Addr, whole span) (all []asked) {
	latest := time.Now().Add(-settled)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range a.questions[addr] {
		if !q.at.Before(whole.from) && q.at.Before(whole.to) && q.at.Before(latest) {
			all = append(all, asked{q.at, slices.Clone(q.macs)})
		}
	}
	return all
}

// where returns the periods of the questions that are so: from each to one interval later.
func (a *asker) where(addr netip.Addr, whole span, is func(asked) bool) (all []span) {
	questions := a.within(addr, whole)
	for i, q := range questions {
		if !is(q) {
			continue
		}
		s := span{q.at, q.at.Add(a.interval)}
		if i+1 < len(questions) && is(questions[i+1]) {
			s.to = questions[i+1].at // no hole between two, however late the second was
		}
		all = append(all, s)
	}
	return union(all)
}

// doubles returns when a question had answers from two.
func (a *asker) doubles(addr netip.Addr, whole span) []span {
	return a.where(addr, whole, func(q asked) bool { return len(q.macs) > 1 })
}

// unanswered returns when a question had no answer.
func (a *asker) unanswered(addr netip.Addr, whole span) []span {
	return a.where(addr, whole, func(q asked) bool { return len(q.macs) == 0 })
}

// answers returns, for each owner, from which question to which it answered without a pause. A single answer has no length.
func (a *asker) answers(addr netip.Addr, whole span) map[hardware][]span {
	runs := make(map[hardware][]span)
	var last time.Time
	for _, q := range a.within(addr, whole) {
		for _, mac := range q.macs {
			if n := len(runs[mac]); n > 0 && runs[mac][n-1].to.Equal(last) {
				runs[mac][n-1].to = q.at
			} else {
				runs[mac] = append(runs[mac], span{q.at, q.at})
			}
		}
		last = q.at
	}
	return runs
}

// latest returns who answered the latest question that was answered.
func (a *asker) latest(addr netip.Addr) (owners []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	questions := a.questions[addr]
	for i := len(questions) - 1; i >= 0; i-- {
		for _, mac := range questions[i].macs {
			owners = append(owners, a.client.lab.byMAC(mac))
		}
		if len(owners) > 0 {
			return owners
		}
	}
	return nil
}

func (a *asker) announced() []Announcement {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.heard)
}
