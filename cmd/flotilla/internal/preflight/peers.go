package preflight

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/diagnosis"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// peer is what was learned of an address of Config.Peers.
type peer struct {
	addr   string
	ips    []netip.Addr
	report diagnosis.Report
	ahead  time.Duration // of its clock, as seen from here
	err    error
}

// peers finds the peers and asks each who it is.
func (c *checker) peers(ctx context.Context) {
	if c.cfg.Peers == nil {
		if !c.dev {
			c.ok("peers", "none are configured: the node is alone, or is one that others look for")
		}
		return
	}
	found, err := c.find(ctx)
	if err != nil {
		c.warn("peers", "if other nodes run already, correct FLOTILLA_PEERS or DNS", "none was found: %v", err)
		return
	}
	all := make([]peer, len(found))
	var asking sync.WaitGroup
	for i, addr := range found {
		asking.Go(func() { all[i] = c.meet(ctx, addr) })
	}
	asking.Wait()
	for i := range all {
		p := &all[i]
		own := c.isOwn(p)
		for _, ip := range p.ips {
			if !own && !ip.IsLoopback() && !slices.Contains(c.machine, ip) {
				c.remote = true
			}
		}
		c.peerHosts = append(c.peerHosts, p.ips...)
		c.judge(p, own)
	}
}

// find returns the addresses of the peers, each once.
func (c *checker) find(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found, err := c.cfg.Peers(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if len(found) == 0 {
		return nil, errors.New("no address was found")
	}
	return found, nil
}

// lookup returns the addresses of the host of a host:port.
func (c *checker) lookup(ctx context.Context, addr string) ([]netip.Addr, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	ips, err := c.o.Lookup(ctx, host)
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, err
}

// meet resolves the name of a peer and asks it who it is.
func (c *checker) meet(ctx context.Context, addr string) peer {
	p := peer{addr: addr}
	if p.ips, p.err = c.lookup(ctx, addr); p.err != nil {
		return p
	}
	begun := time.Now()
	p.report, p.err = c.ask(ctx, addr)
	if took := time.Since(begun); p.err == nil && !p.report.Time.IsZero() {
		p.ahead = p.report.Time.Sub(begun.Round(0).Add(took / 2))
	}
	return p
}

// ask asks the node at an address who it is.
func (c *checker) ask(ctx context.Context, addr string) (diagnosis.Report, error) {
	var secrets []seal.Secret
	for _, s := range c.cfg.Secrets {
		raw, err := seal.ParseSecret(s.Encode())
		if err != nil {
			return diagnosis.Report{}, err
		}
		secrets = append(secrets, raw)
	}
	client, err := remote.Open(remote.Config{Secrets: secrets, Peers: flotilla.Static(addr), Dial: c.o.Dial})
	if err != nil {
		return diagnosis.Report{}, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	report, _, err := client.Diagnose(ctx, remote.DiagnoseRequest{})
	return report, err
}

// isOwn reports whether a peer is this node itself.
func (c *checker) isOwn(p *peer) bool {
	if p.err == nil {
		return c.id != "" && p.report.ID == c.id
	}
	_, port, _ := net.SplitHostPort(p.addr)
	_, ownPort, _ := net.SplitHostPort(c.addr)
	listens, _, _ := net.SplitHostPort(c.cfg.Addr)
	at, err := netip.ParseAddr(listens)
	here := func(ip netip.Addr) bool { return slices.Contains(c.machine, ip) }
	if err == nil && !at.IsUnspecified() {
		here = func(ip netip.Addr) bool { return ip == at.Unmap() }
	}
	return p.addr == c.addr || port == ownPort && len(p.ips) > 0 && !slices.ContainsFunc(p.ips, func(ip netip.Addr) bool { return !here(ip) })
}

// judge says what there is to say about a peer.
func (c *checker) judge(p *peer, own bool) {
	item := "peer " + plaintext.Safe(p.addr)
	var wrong *wire.WrongSecretError
	var dns *net.DNSError
	var noTLS tls.RecordHeaderError
	switch {
	case own && p.err == nil:
		c.ok(item, "this is the running node itself")
	case own && !errors.As(p.err, &wrong):
		c.ok(item, "this is the address of this node")
	case errors.As(p.err, &wrong):
		c.fail(item, "give all nodes the same secret", "it has another cluster secret: its fingerprint is %v, ours is %v", wrong.Have, wrong.Want)
	case errors.As(p.err, &dns):
		c.warn(item, "if that machine is there already, correct FLOTILLA_PEERS or DNS", "its name does not resolve: %s", dns.Err)
	case errors.As(p.err, &noTLS):
		c.fail(item, "give the port for peers, 7373 unless it was given another", "what listens there is no node's port for peers")
	case isOlder(p.err):
		c.warn(item, "upgrade it", "it runs an older version of flotilla, which cannot say more: it has the same secret")
	case p.err != nil:
		c.warn(item, "if it should run already, see to it; a node that is not there yet is no fault", "%s", explain(p.err))
	default:
		c.compare(item, p)
	}
}

// explain says why a node did not answer.
func explain(err error) string {
	var u *remote.UnreachableError
	if errors.As(err, &u) && len(u.Faults) > 0 {
		return u.Faults[0].Explain()
	}
	return plain(err)
}

// isOlder reports whether a node does not know the question.
func isOlder(err error) bool {
	var e *wire.RPCError
	return errors.As(err, &e) && e.Status == 404
}

// compare compares a peer that has answered with this node's configuration.
func (c *checker) compare(item string, p *peer) {
	r := &p.report
	name := plaintext.Safe(r.Name)
	c.clocks = append(c.clocks, clock{whose: name, ahead: p.ahead})
	own := c.settings()
	theirs := membership.Settings{Values: r.Settings}
	var differ []string
	for _, s := range own.Differ(theirs) {
		there, here := r.Settings[s], own.Values[s]
		if s == caSetting {
			there, here = withoutPassword(there), withoutPassword(here)
		}
		differ = append(differ, s+" is "+there+" there and "+here+" here")
	}
	text := strings.Join(differ, "; ")
	build := diagnosis.OfBuild()
	switch timing := r.Settings[membership.TimingSetting]; {
	case r.Cluster != "" && c.cluster != "" && r.Cluster != c.cluster:
		c.fail(item, "give this node the right directory, or other peers",
			"%s belongs to the cluster %s, and not to %s", name, plaintext.ShortID(r.Cluster), plaintext.ShortID(c.cluster))
	case timing != "" && timing != own.Values[membership.TimingSetting]:
		c.fail(item, "give all nodes the same FLOTILLA_TIMING: it would be refused", "%s: %s", name, text)
	case text != "":
		c.warn(item, "give all nodes the same", "%s: %s", name, text)
	case r.Supports != 0 && r.Supports != state.Version, r.Build.Version != "" && build.Version != "" && r.Build.Version != build.Version:
		c.warn(item, "upgrade the older one", "%s runs flotilla %s (cluster version %d), and this command is of %s (%d)",
			name, plaintext.Safe(orUnknown(r.Build.Version)), r.Supports, orUnknown(build.Version), state.Version)
	case r.Cluster == "":
		c.ok(item, "%s answers with the same secret, and is in no cluster yet", name)
	default:
		c.ok(item, "%s of the cluster %s answers with the same secret and settings", name, plaintext.ShortID(r.Cluster))
	}
	if c.cluster == "" {
		c.cluster = r.Cluster
	}
}

func orUnknown(version string) string {
	if version == "" {
		return "of an unknown version"
	}
	return version
}

// settings returns those settings that the environment configures and that nodes compare.
func (c *checker) settings() membership.Settings {
	ca := c.cfg.TLS.CA
	if ca == "" {
		ca = certmagic.LetsEncryptProductionCA
	}
	return membership.Settings{Values: map[string]string{
		membership.TimingSetting: c.cfg.Timing.String(),
		"MaxState":               strconv.FormatInt(c.cfg.MaxState, 10),
		"MaxRecords":             strconv.FormatInt(c.cfg.MaxRecords, 10),
		caSetting:                ca,
	}}
}

// caSetting is the name of the setting that is a URL.
const caSetting = "TLS.CA"

// withoutPassword returns a URL without what may be secret in it.
func withoutPassword(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(no URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
