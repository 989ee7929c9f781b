package fence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// replyTime is how long the kernel may take to answer. It answers before a transaction's system
// call returns. If a transaction fails as a whole, however, it answers only once, while package
// nftables waits for an answer to each part.
const replyTime = time.Second

// slack is how much earlier than asked a timeout ends. It is also how long a transaction may take,
// because timeouts are computed before it and count from within it.
const slack = time.Millisecond

// link is a lasting connection to nftables. After an error it opens a new one, because answers to
// the failed request may still arrive on the old one.
type link struct {
	ns  int // an open file of the network namespace; 0: that of the thread
	nft *nftables.Conn
	raw *netlink.Conn // the same connection, without the wrapping

	own    uint32 // transactions of ours that have changed something
	unsure bool   // it is not known whether one has
}

// generation returns the kernel's count of all transactions in this network namespace.
func (l *link) generation() (gen uint32, err error) {
	err = l.ask(func(*nftables.Conn) error {
		answers, err := l.raw.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
			Data:   make([]byte, nfgenSize),
		})
		if err != nil {
			return err
		}
		for _, m := range answers {
			if len(m.Data) < nfgenSize {
				continue
			}
			d, err := netlink.NewAttributeDecoder(m.Data[nfgenSize:])
			if err != nil {
				return err
			}
			d.ByteOrder = binary.BigEndian
			for d.Next() {
				if d.Type() == unix.NFTA_GEN_ID {
					gen = d.Uint32()
					return d.Err()
				}
			}
		}
		return errors.New("the kernel does not return the generation of its ruleset")
	})
	return gen, err
}

// nfgenSize is the size of struct nfgenmsg, which precedes the attributes.
const nfgenSize = 4

// open returns the connection. It makes one if there is none.
func (l *link) open() (*nftables.Conn, error) {
	if l.nft != nil {
		return l.nft, nil
	}
	options := []nftables.ConnOption{nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		l.raw = c
		return nil
	})}
	if l.ns != 0 {
		options = append(options, nftables.WithNetNSFd(l.ns))
	}
	c, err := nftables.New(options...)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	l.nft = c
	return c, nil
}

// close closes the connection. The next open makes another one.
func (l *link) close() error {
	if l.nft == nil {
		return nil
	}
	c := l.nft
	l.nft, l.raw = nil, nil
	return c.CloseLasting()
}

// ask calls f with the connection, for a bounded time.
func (l *link) ask(f func(c *nftables.Conn) error) error {
	c, err := l.open()
	if err != nil {
		return err
	}
	if err := l.raw.SetDeadline(time.Now().Add(replyTime)); err != nil {
		l.close()
		return err
	}
	if err := f(c); err != nil {
		l.close()
		return err
	}
	return nil
}

// transact sends what queue queues as one transaction. Timeouts in it are relative: they count from
// when the kernel sees them. If the process stands still between the reading of the clock and that,
// they end too late. So transact reads the clock again and repeats the transaction if too much time
// has passed. Until the repetition is done the timeouts are too long: for microseconds, unless the
// process is stopped again just there.
func (l *link) transact(queue func(c *nftables.Conn, at *instant) error) error {
	again := true
	for margin := slack; ; margin *= 2 { // on a slow machine timeouts end earlier
		at := &instant{now: time.Now(), margin: margin}
		err := l.ask(func(c *nftables.Conn) error {
			if err := queue(c, at); err != nil {
				return err
			}
			return c.Flush()
		})
		// The kernel does not count a transaction that changes nothing. One without timeouts may be
		// such.
		l.unsure = l.unsure || err != nil || !at.limits
		l.own++
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && again:
			again = false // perhaps this process stood still, and the answer is there
		case err != nil:
			return err
		case !at.limits || time.Since(at.now) <= margin:
			return nil
		}
	}
}

// instant is the time at which timeouts are computed.
type instant struct {
	now    time.Time
	margin time.Duration
	limits bool // there are timeouts
}

// rest returns the timeout of an element that ends at until, in whole milliseconds. It returns 0 if
// that has passed. The caller must then leave the element out: for the kernel, 0 means without end.
func (i *instant) rest(until time.Time) time.Duration {
	left := until.Sub(i.now)
	if left < i.margin+time.Millisecond { // compared before the subtraction, which could overflow
		return 0
	}
	i.limits = true
	return (left - i.margin).Truncate(time.Millisecond)
}

// index returns the number of the interface with a name. Any socket can be asked; this one is in
// the right network namespace.
func (l *link) index(name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("interface %q: %w", name, err)
	}
	if err := l.ioctl(unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("interface %q: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}

// name returns the name of the interface with a number.
func (l *link) name(index int) (string, error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	ifr.SetUint32(uint32(index))
	if err := l.ioctl(unix.SIOCGIFNAME, ifr); err != nil {
		return "", fmt.Errorf("interface %d: %w", index, err)
	}
	return ifr.Name(), nil
}

func (l *link) ioctl(request uint, ifr *unix.Ifreq) error {
	if _, err := l.open(); err != nil {
		return err
	}
	raw, err := l.raw.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.IoctlIfreq(int(fd), request, ifr) }); err != nil {
		return err
	}
	return failed
}
