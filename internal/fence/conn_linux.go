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

// patience is how long the kernel may take to answer. It answers before a transaction's system call returns; but where a transaction fails as a whole it
// answers once, and the package nftables waits for an answer to each of its parts.
const patience = time.Second

// slack is how much earlier than asked a timeout ends, and how long a transaction may take: what is computed before it counts from within it.
const slack = time.Millisecond

// link is a connection to nftables that is kept. One that gave an error is not used again: answers to what failed may still be on their way.
type link struct {
	ns  int // network namespace, an open file; 0: that of the thread
	nft *nftables.Conn
	raw *netlink.Conn // the same, without its packaging

	own    uint32 // transactions of ours that have changed something
	unsure bool   // whether one has is not known
}

// generation returns the kernel's count of transactions in this network namespace, anybody's.
func (l *link) generation() (gen uint32, err error) {
	err = l.ask(func(*nftables.Conn) error {
		answers, err := l.raw.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN), Flags: netlink.Request},
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
		return errors.New("the kernel does not tell the generation of its ruleset")
	})
	return gen, err
}

// nfgenSize is that of struct nfgenmsg, which precedes the attributes.
const nfgenSize = 4

// open returns the connection.
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

// close closes the connection; the next open makes another.
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
	if err := l.raw.SetDeadline(time.Now().Add(patience)); err != nil {
		l.close()
		return err
	}
	if err := f(c); err != nil {
		l.close()
		return err
	}
	return nil
}

// transact sends what queue queues as one transaction. Limits in it are relative, and count from when the kernel sees them; if the process stood still
// between the look at the clock and then, they would end too late. So it looks again, and repeats the transaction if too much time went by. For as long as a
// repetition lasts, what is in the kernel may be too long, which is microseconds, unless the process is stopped once more just there.
func (l *link) transact(queue func(c *nftables.Conn, at *instant) error) error {
	again := true
	for margin := slack; ; margin *= 2 { // a machine that is always that slow has its limits end earlier
		at := &instant{now: time.Now(), margin: margin}
		err := l.ask(func(c *nftables.Conn) error {
			if err := queue(c, at); err != nil {
				return err
			}
			return c.Flush()
		})
		// Without a limit it may have changed nothing, which the kernel does not count.
		l.unsure = l.unsure || err != nil || !at.limits
		l.own++
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && again:
			again = false // this process stood still, maybe, and the answer is there
		case err != nil:
			return err
		case !at.limits || time.Since(at.now) <= margin:
			return nil
		}
	}
}

// instant is when limits were computed.
type instant struct {
	now    time.Time
	margin time.Duration
	limits bool // there are any
}

// rest returns the timeout of what ends at until, in whole milliseconds; 0 if it has ended: to the kernel, an element with 0 never ends.
func (i *instant) rest(until time.Time) time.Duration {
	left := until.Sub(i.now)
	if left < i.margin+time.Millisecond { // compared before it is subtracted from: the zero time is as far away as can be
		return 0
	}
	i.limits = true
	return (left - i.margin).Truncate(time.Millisecond)
}

// index returns the number of the interface of that name. Any socket may be asked, and this one is in the right network namespace.
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

// name returns the name of the interface of that number.
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
