package preflight

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/self"
)

// ports listens for a moment where the node is to listen.
func (c *checker) ports(ctx context.Context) {
	if l := c.listen("port for peers", c.cfg.Addr); l != nil {
		c.addr = self.Dialable(l.Addr())
		l.Close()
	} else if host, port, err := net.SplitHostPort(c.cfg.Addr); err == nil {
		ip, _ := netip.ParseAddr(host)
		if at, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(host, port)); err == nil && (host == "" || ip.IsValid()) {
			c.addr = self.Dialable(at)
		}
	}
	if c.cfg.Advertise != "" {
		c.addr = c.cfg.Advertise
	}
	if c.o.Serve {
		for _, p := range []struct{ item, addr string }{
			{"port for HTTPS", c.cfg.HTTPSAddr}, {"port for HTTP", c.cfg.HTTPAddr},
		} {
			if l := c.listen(p.item, p.addr); l != nil {
				l.Close()
			}
		}
	}
	if c.cfg.HealthAddr != "" {
		if l := c.listen(healthPort, c.cfg.HealthAddr); l != nil {
			l.Close()
		}
	}
}

// listen listens at an address and says whether that is possible. If it is not, it returns nil.
func (c *checker) listen(item, addr string) net.Listener {
	l, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		c.ok(item, "the node can listen at %s", addr)
		return l
	case errors.Is(err, syscall.EADDRINUSE) && c.inUse:
		c.ok(item, "something listens at %s, as the running node should", addr)
	default:
		c.fault(item, addr, err)
	}
	return nil
}

// healthPort is the item of the health port.
const healthPort = "port for health"

// fault says why nobody can listen at an address.
func (c *checker) fault(item, addr string, err error) {
	// What is wrong, and behind a semicolon or a colon what to do.
	what, remedy, _ := strings.Cut(errs.ListenRemedy(err), "; ")
	if rights, ok := strings.CutPrefix(what, ": "); ok {
		what, remedy = "", rights
	}
	if remedy == "" {
		remedy = "give an address of this machine, as host:port, or only :port"
		if item == healthPort { // only :port is loopback
			remedy = "give an address of this machine, as host:port, or 0.0.0.0:port for all of them"
		}
	}
	var op *net.OpError
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	} else if errors.As(err, &op) {
		err = op.Err
	}
	c.fail(item, remedy, "the node cannot listen at %s%s: %v", addr, what, err)
}

// advertise checks whether the address that peers are told leads here.
func (c *checker) advertise(ctx context.Context) {
	const item = "address for peers"
	if c.cfg.Peers == nil || c.addr == "" {
		return
	}
	const remedy = "set FLOTILLA_ADVERTISE to an address of this machine that the other nodes can dial"
	ips, err := c.lookup(ctx, c.addr)
	if err != nil {
		c.fail(item, remedy, "%s cannot be resolved: %v", c.addr, err)
		return
	}
	for _, ip := range ips {
		if ip.IsLoopback() && c.remote {
			c.fail(item, remedy, "other nodes would be told to dial %s, which leads each of them to itself", c.addr)
			return
		}
	}
	if c.inUse {
		r, err := c.ask(ctx, c.addr)
		switch {
		case err != nil:
			c.warn(item, "see that the name and the firewall let the machine reach itself", "the running node does not answer at %s: %s", c.addr, explain(err))
		case c.id != "" && r.ID != c.id:
			c.fail(item, remedy, "at %s another node answers: %s (%s)", c.addr, plaintext.Safe(r.Name), plaintext.ShortID(r.ID))
		default:
			c.ok(item, "the running node answers at %s", c.addr)
		}
		return
	}
	if f, ok := c.Find("port for peers"); !ok || f.Level != OK || strings.HasSuffix(c.cfg.Addr, ":0") {
		return // nobody can listen, so nobody answers; or the node gets any port
	}
	if leadsBack(ctx, c.cfg.Addr, c.addr) {
		c.ok(item, "%s leads here", c.addr)
		return
	}
	c.warn(item, "see that it is this machine's, and that every firewall lets the port pass; behind a NAT this may be all right",
		"a connection from here to %s does not arrive here", c.addr)
}

// leadsBack reports whether a connection to addr arrives at the listener at port.
func leadsBack(ctx context.Context, port, addr string) bool {
	l, err := net.Listen("tcp", port)
	if err != nil {
		return false
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	// Nothing is sent: the port of the client tells its connection from those of others.
	dialled, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer dialled.Close()
	mine := dialled.LocalAddr().(*net.TCPAddr).Port
	if t, ok := l.(*net.TCPListener); ok {
		t.SetDeadline(time.Now().Add(dialTime))
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return false
		}
		got := conn.RemoteAddr().(*net.TCPAddr).Port
		conn.Close()
		if got == mine {
			return true
		}
	}
}
