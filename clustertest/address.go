package clustertest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/deathnotice"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/vip"
)

const (
	ownerInterval = 50 * time.Millisecond // between two looks for the owner of an address
	// synInterval is how long a machine may be silent before the client looks for the owner again: TCP
	// repeats the first packet then (RFC 6298, 2.1), and the next owner gets it.
	synInterval = time.Second
	synTimeout  = 10 * time.Second // for a connection
	// noticeTimeout bounds how long a guard tries to report a death.
	noticeTimeout = 5 * time.Second
)

// addresses are the floating addresses of a cluster, on Options.Link.
type addresses struct {
	link   *vip.Memory // nil: none
	guards sync.WaitGroup
}

// ClientAt returns a client that reaches every name at a floating address, which the programs have
// put on Options.Link. A connection leads to the machine that answers for the address when it
// begins. While none does, the client waits for up to ten seconds. A connection to a former owner
// is reset when the client sends something.
func (c *Cluster) ClientAt(addr netip.Addr) *http.Client {
	c.t.Helper()
	if c.addresses.link == nil || c.net == nil {
		c.t.Fatal("clustertest: floating addresses need Options.Link, and the network in memory")
	}
	return c.client(func(ctx context.Context, _, at string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(at)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, synTimeout)
		defer cancel()
		return c.addresses.dial(ctx, c.net.Host(clientHost), addr, port)
	})
}

// dial connects a client to the owner of an address.
func (a *addresses) dial(ctx context.Context, client *simnet.Host, addr netip.Addr, port string) (net.Conn, error) {
	tick := time.NewTicker(ownerInterval)
	defer tick.Stop()
	for {
		if owner := a.owner(addr); owner != "" {
			try, cancel := context.WithTimeout(ctx, synInterval)
			conn, err := client.DialAs(try, "tcp", net.JoinHostPort(owner, port), net.JoinHostPort(addr.String(), port))
			cancel()
			if err == nil {
				return &addressConn{Conn: conn, owned: func() bool { return a.owner(addr) == owner }}, nil
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				return nil, err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: addr.AsSlice()}, Err: ctx.Err()}
		}
	}
}

// owner returns the machine that alone answers for an address, empty if there is none.
func (a *addresses) owner(addr netip.Addr) string {
	if owners := a.link.Owners(addr); len(owners) == 1 {
		return owners[0]
	}
	return ""
}

// addressConn is a client's connection to a floating address.
type addressConn struct {
	net.Conn
	owned func() bool // the other end still has the address
}

// Write implements net.Conn. What comes to the next owner is answered with a reset.
func (c *addressConn) Write(p []byte) (int, error) {
	if !c.owned() {
		c.Conn.Close()
		return 0, &net.OpError{Op: "write", Net: "tcp", Addr: c.RemoteAddr(), Err: os.NewSyscallError("write", syscall.ECONNRESET)}
	}
	return c.Conn.Write(p)
}

// die ends what a program does with its addresses, as a kill does. Its addresses stay where they
// are. The function that it returns does what the program's guard then does: it removes them, and
// reports the death over dial unless that is nil. It returns at once.
func (a *addresses) die(host string, dial deathnotice.Dial) (guard func()) {
	if a.link == nil {
		return func() {}
	}
	machine := a.link.Machine(host)
	notices := slices.DeleteFunc(machine.Die(), func(notice []byte) bool { return len(notice) == 0 })
	return func() {
		machine.Remove()
		if len(notices) == 0 || dial == nil {
			return
		}
		a.guards.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), noticeTimeout)
			defer cancel()
			deathnotice.Send(ctx, notices[0], dial) // without it, the others wait for the lease
		})
	}
}
