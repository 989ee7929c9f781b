package preflight

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla"
)

// Options say what is checked beside the variables of the environment.
type Options struct {
	// Domains are the names that the program is to serve.
	Domains []string

	// Addresses are the floating addresses that it is to hold, and Interface is where. Empty: the
	// interface is the one that has an address in the same subnet.
	Addresses []netip.Prefix
	Interface string

	// Serve says that the program uses flotilla.Serve, and so listens for clients at the ports of
	// the configuration.
	Serve bool

	// Getenv returns the value of an environment variable. The configuration itself is read from the
	// environment of this process.
	Getenv func(name string) string

	// Dial connects to peers. Nil: a net.Dialer does.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Lookup returns the addresses of a host name. Nil: that of net.DefaultResolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	// Step is called before each step with what it looks at, and the part of all steps that is done.
	// Nil: nobody wants to know.
	Step func(doing string, done, all int)
}

// How long a look may take.
const (
	lookupTime    = 5 * time.Second
	peerTime      = 5 * time.Second
	authorityTime = 10 * time.Second
	dialTime      = 2 * time.Second
)

// checker is one run.
type checker struct {
	Report
	o   Options
	cfg flotilla.Config // complete, with defaults
	dev bool            // it is that of a node for trying out

	measure func(dir string) (median, slowest time.Duration, err error) // how long a sync takes

	inUse     bool   // a process has the directory
	id        string // of the node whose directory it is; empty: it has none yet
	cluster   string // that this node, or else a peer, belongs to
	remote    bool   // some peers are on other machines
	addr      string // what peers are to dial; empty: not known
	machine   []netip.Addr
	peerHosts []netip.Addr // addresses of the peers' machines
	clocks    []clock      // of peers that have answered
}

// Run checks what the environment of this process configures.
func Run(ctx context.Context, o Options) Report {
	c := newChecker(o)
	if !c.variables() {
		return c.Report
	}
	steps := []struct {
		doing string
		do    func(ctx context.Context)
	}{
		{"the secret", c.secret},
		{"the directory", c.directory},
		{"the ports", c.ports},
		{"the peers", c.peers},
		{"the address for peers", c.advertise},
		{"the certificate authority", c.authority},
		{"the clocks", c.compareClocks},
		{"the domains", c.domains},
		{"the floating addresses", c.addresses},
	}
	for i, s := range steps {
		if ctx.Err() != nil {
			c.fail("check", "run it again", "it was interrupted before it had looked at %s", s.doing)
			break
		}
		c.o.Step("checking "+s.doing, i, len(steps))
		s.do(ctx)
	}
	return c.Report
}

func newChecker(o Options) *checker {
	c := &checker{o: o, measure: measureSync}
	if c.o.Lookup == nil {
		c.o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if c.o.Step == nil {
		c.o.Step = func(string, int, int) {}
	}
	c.machine = ownAddresses()
	return c
}

// variables reads the configuration. It reports whether there is one to check.
func (c *checker) variables() bool {
	cfg, err := flotilla.ConfigFromEnv()
	if err == nil {
		c.cfg, err = cfg.WithDefaults()
	}
	var wrong *flotilla.ConfigError
	if errors.As(err, &wrong) && strings.HasPrefix(wrong.Field, "Backups") && cfg.Backups.Dir != "" {
		c.fail("backups", "give a directory in FLOTILLA_BACKUPS to which this user may write", "%s", plain(err))
		cfg.Backups = flotilla.Backups{}
		c.cfg, err = cfg.WithDefaults()
	} else if err == nil && cfg.Backups.Dir != "" {
		defer c.backups(cfg.Backups.Dir)
	}
	if err != nil {
		c.fail("variables", "correct it and check again: the rest was not looked at", "%s", plain(err))
		return false
	}
	if c.dev = cfg.Dir == "" && cfg.Peers == nil && len(cfg.Secrets) == 0; c.dev {
		c.warn("variables", "set FLOTILLA_DIR, FLOTILLA_SECRETS_FILE and FLOTILLA_PEERS for a cluster",
			"none of them gives a directory, a secret or peers, so the node would run in development mode, on this machine alone")
		return true
	}
	c.ok("variables", "all that begin with FLOTILLA_ are known and have the right form")
	return true
}

// plain returns the text of an error of the library in one line, without its prefix.
func plain(err error) string {
	return strings.ReplaceAll(strings.TrimPrefix(err.Error(), "flotilla: "), "\n", "; ")
}

// ownAddresses returns the addresses of this machine.
func ownAddresses() []netip.Addr {
	var all []netip.Addr
	addrs, _ := net.InterfaceAddrs() // none: then no address is taken for this machine's
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				all = append(all, ip.Unmap())
			}
		}
	}
	return all
}
