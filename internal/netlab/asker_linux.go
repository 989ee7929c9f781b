package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab/frame"
	"github.com/flotilla-ha/flotilla/internal/netlab/span"
)

// asker asks from one client, again and again, who has some addresses. It records who answers which
// question.
//
// The questions are broadcasts (IPv6: to the solicited-node group), like those of a client that
// knows nothing. No cache is involved. Each question asks for its answer at a hardware address of
// its own, which tells the answers apart. The asking protocol address belongs to no host either, so
// the questions teach the nodes nothing about hosts of the lab.
type asker struct {
	client    *Host
	number    int
	interval  time.Duration
	ownerName func(frame.MAC) string
	arp, nd   *packetSocket
	stop      chan struct{}
	running   sync.WaitGroup

	mu            sync.Mutex
	err           error
	questions     map[netip.Addr][]asked
	numbers       []numbered // by the number of the question
	announcements []Announcement
}

// asked is a question, and who answered it. It was sent between two times, which are far apart if
// this process had to wait meanwhile.
type asked struct {
	at   time.Time
	sent time.Time // zero if it may not have been sent
	macs []frame.MAC
}

// numbered finds a question by its number.
type numbered struct {
	addr  netip.Addr
	index int
}

// answerTime is the age at which a question counts. Until then answers may be under way.
const answerTime = 50 * time.Millisecond

func newAsker(
	c *Host, number int, interval time.Duration, addrs []netip.Addr, ownerName func(frame.MAC) string,
) (*asker, error) {
	a := &asker{
		client: c, number: number, interval: interval, ownerName: ownerName,
		stop: make(chan struct{}), questions: make(map[netip.Addr][]asked),
	}
	for _, addr := range addrs {
		a.questions[addr] = nil // announcements count before the first question, too
	}
	var err error
	if a.arp, err = c.link.openPacket(frame.EtherARP); err != nil {
		return nil, err
	}
	if a.nd, err = c.link.openPacket(frame.EtherIPv6); err != nil {
		return nil, errors.Join(err, a.arp.Close())
	}
	a.running.Go(func() { a.ask(addrs) })
	a.running.Go(func() { a.listen(a.arp) })
	a.running.Go(func() { a.listen(a.nd) })
	return a, nil
}

// tag returns the hardware address at which a question asks for its answer.
func (a *asker) tag(number int) frame.MAC {
	return frame.MAC{0x02, 0x5a, byte(a.number), byte(number >> 16), byte(number >> 8), byte(number)}
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
			q := frame.Question(frame.MAC(a.client.MAC), a.next(addr), asker, addr)
			if err := a.arp.send(q); err != nil && !errors.Is(err, os.ErrClosed) {
				a.fail(err)
			}
			a.sent(addr)
		}
		select {
		case <-ticker.C:
		case <-a.stop:
			return
		}
	}
}

// next records a question, and returns its tag.
func (a *asker) next(addr netip.Addr) frame.MAC {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.numbers = append(a.numbers, numbered{addr, len(a.questions[addr])})
	a.questions[addr] = append(a.questions[addr], asked{at: time.Now()})
	return a.tag(len(a.numbers) - 1)
}

// sent records that the last question about addr has been sent.
func (a *asker) sent(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.questions[addr]
	all[len(all)-1].sent = time.Now()
}

func (a *asker) listen(socket *packetSocket) {
	buf := make([]byte, 2048)
	for {
		n, err := socket.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			a.fail(err)
			return
		}
		if c, ok := frame.ParseClaim(buf[:n]); ok {
			a.observe(c)
		}
	}
}

// observe records an answer or an announcement.
func (a *asker) observe(c frame.Claim) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, watched := a.questions[c.Addr]; !watched {
		return
	}
	if !c.Asked {
		a.announcements = append(a.announcements, Announcement{
			At: now, Client: a.client.Name, Addr: c.Addr, Owner: a.ownerName(c.MAC),
			Form: c.Form, Override: c.Override, Target: c.Target,
		})
		return
	}
	number := int(c.To[3])<<16 | int(c.To[4])<<8 | int(c.To[5])
	if number >= len(a.numbers) || c.To != a.tag(number) || a.numbers[number].addr != c.Addr {
		return // an answer to another question
	}
	q := &a.questions[c.Addr][a.numbers[number].index]
	if !slices.Contains(q.macs, c.MAC) {
		q.macs = append(q.macs, c.MAC)
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

// within returns the questions of a period that count.
func (a *asker) within(addr netip.Addr, whole span.Span) (all []asked) {
	latest := time.Now().Add(-answerTime)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range a.questions[addr] {
		if !q.at.Before(whole.From) && q.at.Before(whole.To) && q.at.Before(latest) && !q.sent.IsZero() {
			all = append(all, asked{q.at, q.sent, slices.Clone(q.macs)})
		}
	}
	return all
}

// where returns the periods of the questions for which is returns true. A period lasts from a
// question to one interval later.
func (a *asker) where(addr netip.Addr, whole span.Span, is func(asked) bool) (all []span.Span) {
	questions := a.within(addr, whole)
	for i, q := range questions {
		if !is(q) {
			continue
		}
		s := span.Span{From: q.at, To: q.at.Add(a.interval)}
		if i+1 < len(questions) && is(questions[i+1]) {
			s.To = questions[i+1].at // no gap between two, however late the second was
		}
		all = append(all, s)
	}
	return span.Union(all)
}

// doubles returns the periods of the questions that two answered.
func (a *asker) doubles(addr netip.Addr, whole span.Span) []span.Span {
	return a.where(addr, whole, func(q asked) bool { return len(q.macs) > 1 })
}

// unanswered returns the periods of the questions that nobody answered.
func (a *asker) unanswered(addr netip.Addr, whole span.Span) []span.Span {
	return a.where(addr, whole, func(q asked) bool { return len(q.macs) == 0 })
}

// answers returns for each owner the periods in which it certainly answered every question: from
// the first to the last. The period of a single answer has no length.
func (a *asker) answers(addr netip.Addr, whole span.Span) map[frame.MAC][]span.Span {
	runs := make(map[frame.MAC][]span.Span)
	var last []frame.MAC
	for _, q := range a.within(addr, whole) {
		for _, mac := range q.macs {
			if n := len(runs[mac]); slices.Contains(last, mac) {
				runs[mac][n-1].To = q.at
			} else {
				runs[mac] = append(runs[mac], span.Span{From: q.sent, To: q.sent})
			}
		}
		last = q.macs
	}
	return runs
}

// latest returns who answered the latest question that anybody answered.
func (a *asker) latest(addr netip.Addr) (owners []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	questions := a.questions[addr]
	for i := len(questions) - 1; i >= 0; i-- {
		for _, mac := range questions[i].macs {
			owners = append(owners, a.ownerName(mac))
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
	return slices.Clone(a.announcements)
}
