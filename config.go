package flotilla

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/certs"
	"github.com/flotilla-ha/flotilla/internal/frontend/tickets"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Config describes one node. It is copied by Open; later changes have no effect.
//
// With Dir, Peers and Secrets all empty it describes the development mode: one node, in memory,
// with a private certificate authority, on loopback addresses only. Any other address is then an
// error, so that a forgotten variable cannot serve a private certificate to the world.
type Config struct {
	// Dir holds the node's identity, its raft log and its snapshots, all sealed. It belongs to one
	// process at a time. Empty: everything is in memory, and the node is a new one on every start:
	// Shutdown then leaves the cluster, and a killed one is removed soon.
	Dir string

	// Name is shown to people. It need not be unique. Empty: the one saved in Dir, else the host name.
	Name string

	// Addr is the TCP address that the other nodes reach this node at. Empty: ":7373", in development
	// mode "127.0.0.1:0".
	Addr string

	// Advertise is the address that the other nodes dial. Empty: the address of the listener, with the
	// address of the outgoing interface in place of an unspecified one, or where there is no route out
	// the first one that is no floating address.
	Advertise string

	// Secrets are the cluster's secrets. The first is shown to peers, and all are accepted of them.
	// The keys to the replicated state are sealed with all that the node had which formed the cluster;
	// any one of those opens them, and they cannot be replaced yet. At least one is needed, except in
	// development mode.
	Secrets []Secret

	// Peers finds addresses of other nodes. It is asked on every start, until this node is a member.
	// Its own address among them is fine. Nil: nobody.
	Peers Discovery

	// Expect is the number of nodes that form a new cluster together; all of them must see one
	// another. 0 or 1: this node forms one alone, unless Peers finds a cluster to join. Nodes of an
	// existing cluster ignore it.
	Expect int

	// TLS says how certificates are obtained.
	TLS TLS

	// Proxies are the balancers whose PROXY protocol header, version 1 or 2, is required and believed,
	// on all ports that clients use: those of Serve, ListenTLS and Listen, with TLS and without. A
	// header from anybody else is not read, and its connection is refused. Health is no such port.
	Proxies []netip.Prefix

	// Timing is how patient the cluster is: LAN by default.
	Timing Timing

	// MaxState bounds what programs store, in bytes of names and values, and, apart from that, what
	// certmagic stores. Roles and locks of programs may have a sixteenth of it more, those of
	// certificates another. So programs that have no room left can stop no certificate, lock or role.
	// What has no room is refused with ErrTooLarge; Status.Space and the log say so before. All nodes
	// should have the same. 0: 64 MiB.
	MaxState int64

	// RemoveDead is how long a member may be gone before the leader removes it. A leader counts from
	// when it began to lead, so it may take longer. A voter stays if fewer than three would be left,
	// or if those that are there would not be a majority. A removed node that comes back needs an
	// empty directory. Whatever this is, a voter that is gone for ten seconds votes no more when
	// another member can vote in its place, and a member without a directory is removed soon. 0: a
	// day; negative: never. All nodes should have the same.
	RemoveDead time.Duration

	// HTTPSAddr and HTTPAddr are the addresses that Serve listens on. Empty: ":443" and ":80", in
	// development mode "127.0.0.1:8443" and "127.0.0.1:8080". HealthAddr is where it serves Health;
	// empty: nowhere. Nothing else uses them.
	HTTPSAddr, HTTPAddr, HealthAddr string

	// Server is what Serve serves HTTPS with, for those who want other limits, hooks, or certificates
	// of clients; nil: one of its own. Serve completes it:
	//   - What is zero gets flotilla's defaults: ReadHeaderTimeout, which bounds a TLS handshake too,
	//     10 s, and IdleTimeout 2 min, both unless ReadTimeout is set, which then stands for them;
	//     MaxHeaderBytes 64 KiB; ErrorLog: Logger at debug level; in HTTP2 SendPingTimeout 30 s,
	//     PingTimeout 15 s and WriteByteTimeout 30 s. A negative duration means none, a negative
	//     MaxHeaderBytes or PingTimeout net/http's own default. ReadTimeout and WriteTimeout stay as
	//     they are, with zero for none, because they would end long streams.
	//   - All of its TLSConfig is kept, such as ClientAuth and MinVersion, save what TLSConfig of Node
	//     sets itself, GetCertificate for one. NextProtos has both. TLS-ALPN-01 challenges are
	//     answered without regard to it: certificate authorities show no certificate.
	//   - Its Handler serves if Serve is given none. Its hooks are called as ever, with connections
	//     that lead to flotilla's.
	//
	// Addr is not used. A Server serves once; another Serve with the same one is an error, as is one
	// that has been shut down. It is ended by the end of Serve's context, not by its own Shutdown.
	Server *http.Server

	// Drain says how long Serve takes its leave.
	Drain Drain

	// Redirect is the status that HTTPHandler sends visitors to https with: 308, which keeps the
	// method and the body, or 301, for clients that do not know 308. 0: 308.
	Redirect int

	// Logger receives what happens. Nil: slog.Default(). No record holds a secret, a key or a value.
	// Nothing waits in silence: what takes longer than five seconds is logged with level WARN, with
	// the reason and the peers that it waits for, and again at growing intervals.
	Logger *slog.Logger

	// PeerListen and PeerDial replace the network between nodes. Nil: net.Listen and a net.Dialer.
	// Connections are authenticated and encrypted on top in any case. They have nothing to do with the
	// addresses that clients use.
	PeerListen func(network, addr string) (net.Listener, error)
	PeerDial   func(ctx context.Context, network, addr string) (net.Conn, error)

	dev bool // development mode, decided by complete before it puts a secret in
	// called before the lease manager looks at the clock, for tests of one that comes late; nil:
	// nothing
	held func()
	// how fast this node's clock runs, for tests whose nodes have one clock; 0: 1
	rate      float64
	diskFault func(op string) error // see durable.LogOptions, for tests; nil: none
	skew      time.Duration         // by how much this node's wall clock is ahead, for the same tests
	// changes what the certificates get, for tests; nil: nothing is changed
	certs func(*certs.Config)
}

// TLS says how a node obtains certificates. The zero TLS asks Let's Encrypt, without an e-mail
// address. All nodes of a cluster must have the same.
type TLS struct {
	// Email is the contact of the ACME account.
	Email string

	// CA is the URL of the ACME directory. Empty: Let's Encrypt's, in development mode a private one
	// within the node.
	CA string

	// Private has certificates signed by an authority of the cluster's own, as in development mode,
	// whose root is in the cluster's storage and which no client trusts: for clusters that are tried
	// out. CA must be empty.
	Private bool

	// TrustedRoots verify the ACME server. Nil: the system's roots.
	TrustedRoots *x509.CertPool

	// TicketRotation is how long one key seals session tickets, with which clients resume on any node.
	// Their tickets are accepted for two to three times as long. 0: 12 hours. It is a second at least.
	TicketRotation time.Duration

	// PerNode has each node order certificates of its own, with a key of its own that never leaves it:
	// for those who must tell nodes apart, or take one's key back without the others'. It makes one
	// order per node and name, against the limits of the authority. Certificates are then in Dir,
	// sealed, or in memory alone without it, and not in the cluster's storage, nor in what the
	// flotilla command exports; accounts, challenges and limits are the cluster's as ever, and any
	// node answers for all. When it is switched on or off the certificates are ordered anew; those of
	// before are kept where they are.
	PerNode bool

	// Configure, if not nil, may change what flotilla has prepared, before it is used: other
	// challenges, key types, DNS providers. OnDemand needs a DecisionFunc, and lets handshakes have
	// names ordered beside the declared ones, ten in ten minutes. The issuer is nil in development
	// mode. Storage must stay as it is. Where a certificate names an OCSP responder, flotilla staples
	// itself, and heeds HTTPProxy and ResponderOverrides of certmagic's OCSP, of which one that is
	// empty has nobody asked.
	Configure func(*certmagic.Config, *certmagic.ACMEIssuer)
}

// Drain says how long a node takes its leave when the context of Serve ends. The steps: it is not
// ready any more, which Health and Status tell; Grace goes by; every answer says that it is the
// last of its connection, and no new connection is taken; Patience goes by, or less; roles are
// handed over, then the leadership; the node closes. Serve of a Node ends before the roles:
// Shutdown does the rest.
//
// A connection that a handler has hijacked, such as a WebSocket, is not waited for, as net/http has
// it, and ends with the process. A handler that wants more says farewell when Status says Draining.
type Drain struct {
	// Grace is how long the node goes on as usual although it is not ready, so that the checks of
	// balancers see that. It should be longer than their interval times the number of failures that
	// they want. 0: 3 s if Config.HealthAddr is set, else none, as nobody could see it. Negative:
	// none.
	Grace time.Duration

	// Patience is how long requests under way have to end; those that are left are cut, and Serve's
	// error says how many. 0: 20 s. It cannot be negative.
	Patience time.Duration
}

const (
	drainGrace    = 3 * time.Second  // the default of Drain.Grace
	drainPatience = 20 * time.Second // the default of Drain.Patience
)

// Timing is how patient a cluster is. All nodes of a cluster must have the same.
type Timing int

const (
	// LAN suits nodes in one data centre. Its lease is 600 ms long. A machine that dies is replaced
	// after that time, as leader and as holder of anything (BenchmarkIsolatedLeader,
	// BenchmarkRoleFailover in bench). A leader whose process dies is replaced as soon as its port
	// refuses (BenchmarkFailover); the locks and roles of that process are free when its lease has
	// expired, or at once if a guard process tells of the death, as that of package vip does
	// (BenchmarkAddresses).
	LAN Timing = iota

	// Fast suits nodes on one quiet network: 0.2 s.
	Fast

	// WAN suits nodes far apart: 3 s.
	WAN
)

// rawSecrets returns the secrets as the packages below know them.
func (c *Config) rawSecrets() []seal.Secret {
	raw := make([]seal.Secret, len(c.Secrets))
	for i, s := range c.Secrets {
		raw[i] = s.raw
	}
	return raw
}

// String returns the name that FLOTILLA_TIMING has for t.
func (t Timing) String() string {
	switch t {
	case LAN:
		return "lan"
	case Fast:
		return "fast"
	case WAN:
		return "wan"
	}
	return "unknown"
}

// lengths returns the lengths of time that t stands for.
func (t Timing) lengths() timing.Timing {
	switch t {
	case Fast:
		return timing.Of(200 * time.Millisecond)
	case WAN:
		return timing.Of(3 * time.Second)
	}
	return timing.Of(600 * time.Millisecond)
}

// complete checks c and puts in what is not said.
func (c *Config) complete() error {
	bad := func(field, reason string) error { return &ConfigError{Field: field, Reason: reason} }
	dev := c.development()
	switch {
	case c.Timing < LAN || c.Timing > WAN:
		return bad("Timing", fmt.Sprintf("%d is none of LAN, Fast and WAN", c.Timing))
	case c.Expect < 0 || c.Expect > membership.MaxVoters:
		return bad("Expect", fmt.Sprintf("a cluster is formed by 1 to %d nodes, not %d; more may join it later", membership.MaxVoters, c.Expect))
	case c.Expect > 1 && c.Peers == nil:
		return bad("Peers", fmt.Sprintf("%d nodes are to form a cluster, and there is no way to find them; set Peers", c.Expect))
	case c.TLS.TicketRotation != 0 && c.TLS.TicketRotation < tickets.MinRotation:
		return bad("TLS.TicketRotation", "it must be a second at least, or zero for 12 hours")
	case c.MaxState < 0:
		return bad("MaxState", "it is a number of bytes and cannot be negative")
	case c.Drain.Patience < 0:
		return bad("Drain.Patience", "it cannot be negative; a nanosecond is as good as none")
	case c.Redirect != 0 && c.Redirect != http.StatusPermanentRedirect && c.Redirect != http.StatusMovedPermanently:
		return bad("Redirect", fmt.Sprintf("it must be 308 or 301, not %d", c.Redirect))
	case len(c.Name) > 255 || strings.ContainsFunc(c.Name, unicode.IsControl):
		return bad("Name", "it has more than 255 bytes, or characters that cannot be shown")
	case len(c.Secrets) == 0 && !dev:
		return bad("Secrets", "there is none; make one with NewSecret, and give the same to every node. (Only with Dir, Peers and Secrets all empty a node runs in development mode.)")
	}
	if err := checkDir(c.Dir); err != nil {
		return err
	}
	c.Secrets = slices.Clone(c.Secrets)
	for i, s := range c.Secrets {
		if s.IsZero() {
			return bad("Secrets", fmt.Sprintf("number %d is empty; use NewSecret or ParseSecret", i+1))
		}
		if slices.Contains(c.Secrets[:i], s) {
			return bad("Secrets", fmt.Sprintf("number %d stands there twice", i+1))
		}
	}
	c.Proxies = slices.Clone(c.Proxies)
	for _, p := range c.Proxies {
		if !p.IsValid() {
			return bad("Proxies", "one of them is not a valid prefix")
		}
	}
	if c.Addr == "" {
		c.Addr = ":7373"
		if dev {
			c.Addr = "127.0.0.1:0"
		}
	}
	if c.Advertise != "" {
		host, port, err := net.SplitHostPort(c.Advertise)
		if ip, _ := netip.ParseAddr(host); err != nil || host == "" || port == "0" || checkHostPort(c.Advertise) != nil || ip.IsValid() && ip.IsUnspecified() {
			return &ConfigError{Field: "Advertise", Reason: "it must be a host:port that peers can dial, not " + strconv.Quote(c.Advertise), Err: err}
		}
	}
	if c.HTTPSAddr == "" {
		c.HTTPSAddr = ":443"
		if dev {
			c.HTTPSAddr = "127.0.0.1:8443"
		}
	}
	if c.HTTPAddr == "" {
		c.HTTPAddr = ":80"
		if dev {
			c.HTTPAddr = "127.0.0.1:8080"
		}
	}
	if err := c.checkPorts(); err != nil {
		return err
	}
	if err := c.checkPeers(); err != nil {
		return err
	}
	if dev {
		if err := loopbackOnly("Addr", c.Addr); err != nil {
			return err
		}
		c.Secrets = []Secret{NewSecret()}
		c.dev = true
	}
	if c.TLS.TicketRotation == 0 {
		c.TLS.TicketRotation = tickets.Rotation
	}
	if c.Drain.Patience == 0 {
		c.Drain.Patience = drainPatience
	}
	if c.Drain.Grace == 0 && c.HealthAddr != "" {
		c.Drain.Grace = drainGrace
	}
	if c.MaxState == 0 {
		c.MaxState = 64 << 20
	}
	if c.RemoveDead == 0 {
		c.RemoveDead = membership.RemoveDead
	}
	if c.Redirect == 0 {
		c.Redirect = http.StatusPermanentRedirect
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.PeerListen == nil {
		c.PeerListen = net.Listen
	}
	if c.PeerDial == nil {
		c.PeerDial = new(net.Dialer).DialContext
	}
	return nil
}

// checkDir refuses what a shell would have replaced: it would become a directory of that very name.
func checkDir(dir string) error {
	bad := func(reason string) error {
		return &ConfigError{Field: "Dir", Reason: fmt.Sprintf("%q %s", dir, reason)}
	}
	first, _, _ := strings.Cut(filepath.ToSlash(dir), "/")
	switch {
	case strings.HasPrefix(dir, "~"):
		return bad("begins with ~, which only shells replace; write the path in full, such as /home/me/x (or ./~x for a directory of that name)")
	case strings.HasPrefix(first, "$") || strings.HasPrefix(first, "%"):
		return bad("begins with the name of a variable that nobody has replaced; write the path in full")
	case strings.TrimSpace(dir) != dir || strings.ContainsFunc(dir, unicode.IsControl):
		return bad("has spaces at its ends, or characters that cannot be shown; write it without them")
	}
	return nil
}

// checkPorts checks the form of the addresses to listen on, and that no two are the same.
func (c *Config) checkPorts() error {
	all := []struct{ field, addr string }{{"Addr", c.Addr}, {"HTTPSAddr", c.HTTPSAddr}, {"HTTPAddr", c.HTTPAddr}, {"HealthAddr", c.HealthAddr}}
	taken := make(map[string]string)
	for _, a := range all {
		if a.addr == "" {
			continue
		}
		if err := checkHostPort(a.addr); err != nil {
			return &ConfigError{Field: a.field, Reason: "it must be host:port, and the host may be empty", Err: err}
		}
		if _, port, _ := net.SplitHostPort(a.addr); port == "0" {
			continue
		}
		if other := taken[a.addr]; other != "" {
			return &ConfigError{Field: a.field, Reason: fmt.Sprintf("it is %s, as %s is; give each an address of its own", a.addr, other)}
		}
		taken[a.addr] = a.field
	}
	return nil
}

// checkPeers returns what Peers finds wrong with what it was told. Its context is over, so it looks
// for nobody.
func (c *Config) checkPeers() error {
	if c.Peers == nil {
		return nil
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.Peers(over)
	var wrong *ConfigError
	if errors.As(err, &wrong) {
		return wrong
	}
	return nil
}

// development reports whether c asks for the development mode.
func (c *Config) development() bool {
	return c.dev || c.Dir == "" && c.Peers == nil && len(c.Secrets) == 0
}

// loopbackOnly returns a *ConfigError naming field unless addr, "host:port", can be reached from
// this machine alone.
func loopbackOnly(field, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return &ConfigError{Field: field, Reason: "an address is host:port", Err: err}
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost") {
		return nil
	}
	return &ConfigError{Field: field, Reason: fmt.Sprintf("%q is not a loopback address, and without Dir, Peers and Secrets "+
		"this is a development node, whose private certificates are for this machine alone; set them, or listen on localhost", addr)}
}
