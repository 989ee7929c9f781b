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
	"github.com/flotilla-ha/flotilla/internal/healthauth"
	"github.com/flotilla-ha/flotilla/internal/hooks"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Config describes one node. Open copies it; later changes have no effect.
//
// With Dir, Peers and Secrets all empty, it describes the development mode: one node in memory,
// with a private certificate authority, on loopback addresses only. Any other address is then an
// error. So a forgotten variable cannot serve a private certificate to the public.
type Config struct {
	// Dir is the directory of the node's identity, its raft log and its snapshots, all sealed. Only
	// one process at a time can use it. Empty: everything is in memory, and each start makes a new
	// node. Shutdown then leaves the cluster, and a node that was killed is removed soon.
	Dir string

	// Name is shown to people. It need not be unique. Empty: the name saved in Dir, or else the host
	// name.
	Name string

	// Addr is the TCP address on which the node listens for other nodes. Empty: ":7373", or
	// "127.0.0.1:0" in development mode.
	Addr string

	// Zone names the failure domain of this machine, such as its room, site or provider: what may fail
	// as a whole. The leader has members vote so that the loss of any one zone leaves a majority, if
	// there are enough zones for that. Empty: the machine is a zone of its own.
	Zone string

	// Witness makes this node one that votes and does nothing else. It leads only for a moment, if it
	// alone has the newest log entries; it holds no roles and no locks, and opens no ports for
	// clients. With a witness on a third, small machine, two machines survive the death of either. It
	// joins a cluster that Peers must find, and forms none. It keeps the whole replicated state, as
	// every node does. Timing and a secret must be those of the cluster; other settings need not. See
	// "flotilla witness".
	Witness bool

	// Advertise is the address that the other nodes dial. Empty: the address of the listener. If that
	// is unspecified, the address of the outgoing interface takes its place. Without a route out, it
	// is the first address that is not a floating one.
	Advertise string

	// Secrets are the cluster's secrets. The node proves itself to peers with the first, and accepts
	// all of them from peers. A new cluster seals its keys with all of them, so that any one opens
	// them. To replace the secret of a running cluster, give every node the new one too, and run
	// "flotilla rotate secret". At least one secret is needed, except in development mode.
	Secrets []Secret

	// SecretsFile is a file with secrets in their text form, one on each line. The node reads it again
	// when it changes, so that a new secret needs no restart. Secrets is not read then. Empty: there
	// is no file.
	SecretsFile string

	// Peers finds addresses of other nodes. It is asked on every start, until this node is a member.
	// It may return this node's own address. Nil: there are no other nodes to find.
	Peers Discovery

	// Expect is the number of nodes that form a new cluster together. All of them must see one
	// another, and a Witness does not count. 0 or 1: this node forms a cluster alone, unless Peers
	// finds one to join. Nodes of an existing cluster ignore it.
	Expect int

	// TLS says how certificates are obtained.
	TLS TLS

	// Proxies are the balancers that must send a PROXY protocol header, version 1 or 2, on every
	// connection. The node trusts their headers. This applies to all ports for clients, with TLS and
	// without: those of Serve, ListenTLS and Listen, but not that of Health. A header from another
	// address is not read, and its connection is refused.
	Proxies []netip.Prefix

	// Timing sets the length of leases and timeouts. The default is LAN.
	Timing Timing

	// Guard starts a guard: a second process of this binary that tells the cluster when this one is
	// dead, however it died. What a node held then goes to others within some hundredths of a second:
	// the roles of Hold, the locks of Storage, the leadership. Without a guard that takes as long as
	// the lease, except for the leadership. Roles of HoldPublic move at once only if the bearer of the
	// notice ends their effect: see hold.Public. Package vip has a guard anyway, and shares this one.
	// This guard ends nothing but the addresses of package vip, so no other role may be
	// hold.Public.ReleasedOnDeath, and no vip.Place of your own may be vip.Guarded.
	//
	// A program needs to do nothing for it: an init function of this module takes the second process
	// over before main. Init functions of packages that are initialized earlier do run there. The
	// process shows as "NAME: flotilla guard", needs no rights, has no open file of the program, and
	// ends with it.
	//
	// The death of the process must mean the end of what it does. Other programs that it has started
	// may live on, so a role of Hold should not stand for what they do.
	//
	// It needs Linux, and PeerDial must be nil, because the guard dials the other nodes itself. Open
	// returns a *ConfigError if the guard does not start. In a container whose process 1 is this
	// program, the kernel kills the guard with it, and the log warns of that.
	Guard bool

	// MaxState limits the records of programs, in bytes of names and values. The records of certmagic
	// have a separate limit of the same size. Roles and locks of programs may take a sixteenth of it
	// in addition, and locks of certificates another sixteenth. So programs that use up their limit
	// cannot block a certificate, lock or role. A write for which there is no room is refused with
	// ErrTooLarge. Status.Space and the log warn before that. All nodes should have the same value. 0:
	// 64 MiB.
	MaxState int64

	// MaxRecords limits the entries of KV, in bytes of keys, values and 64 more for each. They share
	// no room with what MaxState limits. A write for which there is no room is refused with
	// ErrTooLarge. All nodes should have the same value. 0: 48 MiB.
	MaxRecords int64

	// RemoveDead is how long a member may be gone before the leader removes it. A leader counts from
	// the moment at which it began to lead, so it may take longer. A voter stays if fewer than three
	// would be left, or if the voters that are present would not be a majority. A removed node needs
	// an empty directory to come back. Two rules do not depend on RemoveDead: a voter that has been
	// gone for ten seconds loses its vote when another member can vote in its place, and a member
	// without a directory is removed soon. 0: a day; negative: never. All nodes should have the same
	// value.
	RemoveDead time.Duration

	// Backups says where backups of the cluster go, and when. One of the nodes that have it makes
	// them. The zero Backups makes none.
	Backups Backups

	// HTTPSAddr and HTTPAddr are the addresses that Serve listens on. Empty: ":443" and ":80", or
	// "127.0.0.1:8443" and "127.0.0.1:8080" in development mode. HealthAddr is where Serve serves
	// Health. Without a host, as ":8081", it is on loopback: only this machine reaches it. To let
	// balancers and others reach it, name an address: "10.0.0.1:8081", or "0.0.0.0:8081" or
	// "[::]:8081" for all. Empty: nowhere. Only Serve uses these addresses.
	HTTPSAddr, HTTPAddr, HealthAddr string

	// HealthToken is what Health asks for: a bearer token, or the password of HTTP Basic with any user
	// name. Only /livez and /readyz are open to all. It has 16 or more characters of ASCII, and no
	// white space. It travels as it is, because Health is plain HTTP: it keeps out other programs and
	// machines, but not who reads the network. Nodes may have different tokens. Empty: Health asks for
	// nothing.
	HealthToken string

	// Server is the http.Server with which Serve serves HTTPS. Set it to have other limits, hooks, or
	// client certificates. Nil: Serve makes its own. Serve completes it:
	//   - Fields that are zero get flotilla's defaults. ReadHeaderTimeout, which also bounds the TLS
	//     handshake, is 10 s and IdleTimeout 2 min; if ReadTimeout is set, it stands for both.
	//     MaxHeaderBytes is 64 KiB. ErrorLog writes to Logger at debug level. In HTTP2,
	//     SendPingTimeout is 30 s, PingTimeout 15 s and WriteByteTimeout 30 s. A negative duration
	//     means none. A negative MaxHeaderBytes or PingTimeout means the default of net/http.
	//     ReadTimeout and WriteTimeout stay as they are, and zero means none, because they would end
	//     long streams.
	//   - Its TLSConfig is kept, such as ClientAuth and MinVersion, except for the fields that
	//     TLSConfig of Node sets itself, such as GetCertificate. NextProtos has the protocols of both.
	//     TLS-ALPN-01 challenges are answered regardless of it, because certificate authorities show
	//     no certificate.
	//   - Its Handler serves if Serve is given none. Its hooks are called as usual, with connections
	//     that wrap flotilla's.
	//
	// Addr is not used. A Server can serve only once: another Serve with the same one is an error, and
	// so is a Server that has been shut down. The end of Serve's context ends it, not its own
	// Shutdown.
	Server *http.Server

	// Drain bounds the time that Serve takes to end.
	Drain Drain

	// Redirect is the status with which HTTPHandler redirects visitors to https: 308, which keeps the
	// method and the body, or 301, for clients that do not know 308. 0: 308.
	Redirect int

	// Logger receives the node's log. Nil: slog.Default(). No record contains a secret, a key or a
	// value. Nothing waits in silence: an operation that takes longer than five seconds is logged with
	// level WARN, with the reason and the peers that it waits for. The log repeats this at growing
	// intervals.
	Logger *slog.Logger

	// PeerListen and PeerDial replace the network between nodes. Nil: net.Listen and a net.Dialer.
	// Connections are always authenticated and encrypted on top of them. They do not affect the
	// addresses that clients use.
	PeerListen func(network, addr string) (net.Listener, error)
	PeerDial   func(ctx context.Context, network, addr string) (net.Conn, error)

	// Listen opens the node's ports for clients, in place of the node: those of Serve, at HTTPSAddr,
	// HTTPAddr and HealthAddr, and those of ListenTLS and of Listen. It is for sockets that a service
	// manager has opened, and for tests. If it returns neither a listener nor an error, the node
	// listens at that address itself. Serve closes the listeners. It calls Listen again when it opens
	// the node anew, and needs an open listener then too: for a socket that you keep as an os.File,
	// return net.FileListener of it on each call. Other processes may have such a socket too, so the
	// kernel goes on completing connections to it when Serve ends. Those that Serve has not accepted
	// wait for the next process, if there is one, and are reset otherwise. Nil: the node opens all
	// ports itself.
	Listen func(network, addr string) (net.Listener, error)

	dev      bool          // development mode; complete sets it before it adds a secret
	ownDials bool          // PeerDial is that of complete
	hooks    hooks.Hooks   // of tests
	token    func() string // of an open node: HealthToken, where fmt does not see it
	supports uint64        // the newest cluster version, for tests; 0: state.Version
	// changes the Config of the certificates, for tests; nil: not called
	certs func(*certs.Config)
}

// TLS says how a node obtains certificates. The zero TLS uses Let's Encrypt, without an e-mail
// address. All nodes of a cluster must have the same TLS.
type TLS struct {
	// Email is the contact of the ACME account.
	Email string

	// CA is the URL of the ACME directory. Empty: that of Let's Encrypt, or in development mode a
	// private authority within the node.
	CA string

	// Private makes an authority of the cluster's own sign the certificates, as in development mode.
	// Its root is in the cluster's storage, and no client trusts it. It is for trying out a cluster.
	// CA must be empty.
	Private bool

	// TrustedRoots are the roots that verify the ACME server. Nil: the system's roots.
	TrustedRoots *x509.CertPool

	// TicketRotation is how long one key seals session tickets, with which clients resume on any node.
	// Tickets are accepted for two to three times as long. 0: 12 hours. The minimum is a second.
	TicketRotation time.Duration

	// PerNode makes each node order its own certificates, with keys that never leave the node. It is
	// for clusters that must tell nodes apart, or revoke one node's key alone. Each node and name
	// costs one order, which counts against the limits of the authority. The certificates are then
	// sealed in Dir, or only in memory without one. They are neither in the cluster's storage nor in
	// the exports of the flotilla command. Accounts, challenges and limits are still the cluster's,
	// and any node answers challenges for all. When PerNode is switched on or off, the certificates
	// are ordered anew, and the earlier ones stay where they are.
	PerNode bool

	// Configure, if not nil, may change what flotilla has prepared, before it is used: other
	// challenges, key types or DNS providers. OnDemand needs a DecisionFunc. Handshakes can then have
	// further names ordered beside the declared ones, at most ten in ten minutes. The issuer is nil in
	// development mode. Storage must stay as it is. If a certificate names an OCSP responder, flotilla
	// staples the answer itself. It follows HTTPProxy and ResponderOverrides of certmagic's OCSP; an
	// empty override disables a responder.
	Configure func(*certmagic.Config, *certmagic.ACMEIssuer)
}

// Drain bounds the time of a shutdown that begins when the context of Serve ends. The steps are:
//   - The node is not ready any more, as Health and Status show.
//   - Grace passes.
//   - Every answer says that it is the last of its connection, and no new connection is accepted.
//     This takes at most Patience.
//   - Roles are handed over, then the leadership.
//   - The node closes.
//
// Serve of a Node ends before roles are handed over: Shutdown does the rest.
//
// Serve does not wait for connections that a handler has hijacked, such as a WebSocket, and neither
// does net/http. They end with the process. Such a handler can say goodbye when Status says
// Draining.
type Drain struct {
	// Grace is how long the node works as usual although it is not ready, so that the checks of
	// balancers notice that. It should be longer than their interval times the number of failures that
	// they need. 0: 3 s if Config.HealthAddr is set, otherwise none, because nobody could notice it.
	// Negative: none.
	Grace time.Duration

	// Patience is how long requests under way may take to end. Those that are left are cut, and
	// Serve's error says how many. 0: 20 s. It cannot be negative.
	Patience time.Duration
}

const (
	drainGrace    = 3 * time.Second  // the default of Drain.Grace
	drainPatience = 20 * time.Second // the default of Drain.Patience
)

// Timing sets the length of leases and timeouts. All nodes of a cluster must have the same.
type Timing int

const (
	// LAN suits nodes in one data centre. Its lease is 600 ms long. If a machine dies, the other nodes
	// replace it after that time, as leader and as holder of roles and locks (BenchmarkIsolatedLeader,
	// BenchmarkRoleFailover in bench). If only the process of a leader dies, it is replaced as soon as
	// its port refuses connections (BenchmarkFailover). The locks and roles of that process are free
	// when its lease has expired. They are free at once if a guard process reports the death: see
	// Config.Guard (BenchmarkRoleFailover, BenchmarkAddresses).
	LAN Timing = iota

	// Fast suits nodes on one quiet network. Its lease is 200 ms long.
	Fast

	// WAN suits nodes far apart. Its lease is 3 s long.
	WAN

	// Turbo suits nodes in one machine room, on machines with processor time to spare. Its lease is
	// 90 ms long, so that the addresses of a dead machine are elsewhere after 120 ms.
	Turbo
)

// readSecrets reads the file of secrets, if there is one.
func (c *Config) readSecrets() error {
	if c.SecretsFile == "" {
		return nil
	}
	raw, err := secrets.ReadFile(c.SecretsFile)
	if err != nil {
		return &ConfigError{Field: "SecretsFile", Reason: c.SecretsFile + " cannot be used", Err: err}
	}
	c.Secrets = secretsOf(raw)
	return nil
}

// secretsOf is the inverse of rawSecrets.
func secretsOf(raw []seal.Secret) (all []Secret) {
	for _, r := range raw {
		all = append(all, Secret{r})
	}
	return all
}

// rawSecrets returns the secrets in the form that the internal packages use.
func (c *Config) rawSecrets() []seal.Secret { return rawSecrets(c.Secrets) }

func rawSecrets(secrets []Secret) []seal.Secret {
	raw := make([]seal.Secret, len(secrets))
	for i, s := range secrets {
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
	case Turbo:
		return "turbo"
	}
	return "unknown"
}

// lengths returns the durations for t.
func (t Timing) lengths() timing.Timing {
	switch t {
	case Fast:
		return timing.Of(200 * time.Millisecond)
	case WAN:
		return timing.Of(3 * time.Second)
	case Turbo:
		return timing.Of(90 * time.Millisecond)
	}
	return timing.Of(600 * time.Millisecond)
}

// WithDefaults returns c as Open uses it: with the default of each zero value in its place. The
// error is the *ConfigError that Open would return because of c alone, without a look at Dir and
// ports. In Backups.Dir it makes a file, and removes it. In development mode it adds a secret.
func (c Config) WithDefaults() (Config, error) {
	err := c.complete()
	if err == nil {
		policy := c.policy()
		err = policy.Check()
	}
	return c, err
}

// Format prints c without its HealthToken, for every verb. Secrets print their fingerprints. fmt
// does not call it for a Config in an unexported field of another type.
func (c Config) Format(f fmt.State, verb rune) {
	type plain Config // without this method
	if c.HealthToken != "" {
		c.HealthToken = "(set)"
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), plain(c))
}

// policy returns how certificates are obtained.
func (c *Config) policy() certs.Policy {
	t := c.TLS
	return certs.Policy{Email: t.Email, CA: t.CA, Private: t.Private, TrustedRoots: t.TrustedRoots, Configure: t.Configure}
}

// prepare is complete for a node that is opened with that context.
func (c *Config) prepare(ctx context.Context) error {
	hooks.Apply(ctx, &c.hooks)
	if change := c.hooks.Config; change != nil {
		if err := change(c); err != nil {
			return err
		}
	}
	return c.complete()
}

// complete checks c and sets the defaults.
func (c *Config) complete() error {
	bad := func(field, reason string) error { return &ConfigError{Field: field, Reason: reason} }
	c.Secrets = slices.Clone(c.Secrets)
	if err := c.readSecrets(); err != nil {
		return err
	}
	dev := c.development()
	switch {
	case c.Timing < LAN || c.Timing > Turbo:
		return bad("Timing", fmt.Sprintf("%d is none of LAN, Fast, WAN and Turbo", c.Timing))
	case c.Expect < 0 || c.Expect > membership.MaxVoters:
		return bad("Expect", fmt.Sprintf("a cluster is formed by 1 to %d nodes, not %d; more may join it later", membership.MaxVoters, c.Expect))
	case c.Expect > 1 && c.Peers == nil:
		return bad("Peers", fmt.Sprintf("%d nodes are to form a cluster, and there is no way to find them; set Peers", c.Expect))
	case c.TLS.TicketRotation != 0 && c.TLS.TicketRotation < tickets.MinRotation:
		return bad("TLS.TicketRotation", "it must be a second at least, or zero for 12 hours")
	case c.Guard && c.PeerDial != nil && !c.ownDials:
		return bad("Guard", "the guard process dials the other nodes itself, and cannot do so by PeerDial; leave one of the two out")
	case c.MaxState < 0:
		return bad("MaxState", "it is a number of bytes and cannot be negative")
	case c.MaxRecords < 0:
		return bad("MaxRecords", "it is a number of bytes and cannot be negative")
	case c.Drain.Patience < 0:
		return bad("Drain.Patience", "it cannot be negative; use 1 ns for none")
	case c.Redirect != 0 && c.Redirect != http.StatusPermanentRedirect && c.Redirect != http.StatusMovedPermanently:
		return bad("Redirect", fmt.Sprintf("it must be 308 or 301, not %d", c.Redirect))
	case len(c.Name) > 255 || strings.ContainsFunc(c.Name, unicode.IsControl):
		return bad("Name", "it has more than 255 bytes, or characters that cannot be shown")
	case len(c.Zone) > 255 || strings.TrimSpace(c.Zone) != c.Zone || strings.ContainsFunc(c.Zone, unicode.IsControl):
		return bad("Zone", "it has more than 255 bytes, spaces at its ends, or characters that cannot be shown")
	case c.Witness && c.Peers == nil:
		return bad("Peers", "a witness votes in a cluster of other nodes, and there is no way to find them; set Peers")
	case c.Witness && (c.Backups.Dir != "" || c.Backups.Store != nil):
		return bad("Backups", "a witness makes no backups; set Backups on other nodes")
	case len(c.Secrets) == 0 && !dev:
		return bad("Secrets", "there is none; make one with NewSecret, and give the same to every node. (Only with Dir, Peers and Secrets all empty a node runs in development mode.)")
	}
	if err := checkDir("Dir", c.Dir); err != nil {
		return err
	}
	if err := c.Backups.check(); err != nil {
		return err
	}
	for i, s := range c.Secrets {
		if s.IsZero() {
			return bad("Secrets", fmt.Sprintf("number %d is empty; use NewSecret or ParseSecret", i+1))
		}
		if slices.Contains(c.Secrets[:i], s) {
			return bad("Secrets", fmt.Sprintf("number %d is listed twice", i+1))
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
	if err := checkPorts(c.ports()); err != nil {
		return err
	}
	c.HealthAddr = orLoopback(c.HealthAddr)
	if err := checkPorts(c.ports()); err != nil {
		return err
	}
	if err := healthauth.Check(c.HealthToken); c.HealthToken != "" && err != nil {
		return &ConfigError{Field: "HealthToken", Reason: "it cannot be used", Err: err}
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
	if c.MaxRecords == 0 {
		c.MaxRecords = 48 << 20
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
		c.PeerDial, c.ownDials = new(net.Dialer).DialContext, true
	}
	return nil
}

// checkDir refuses a path that a shell would have expanded. It would become a directory of that
// literal name.
func checkDir(field, dir string) error {
	bad := func(reason string) error {
		return &ConfigError{Field: field, Reason: fmt.Sprintf("%q %s", dir, reason)}
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

// checkPeers calls Peers with a context that has ended, so that it checks its arguments without
// looking for anybody. It returns the *ConfigError of Peers, if any.
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
