package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Before an authority is asked for a certificate that it will want to see proved at the name, the node goes and looks who is there.
// An authority takes only a few failed proofs of a name in an hour, and an order while the name still leads to the old machine, or to a
// balancer that knows no node yet, is one of them.

const (
	probeTime   = time.Second            // for the name's addresses, and again for all of them to show a certificate
	probeWait   = 5 * time.Second        // about so long an order waits for the name to lead here
	probePause  = 750 * time.Millisecond // from one probe's beginning to the next's
	probeAgain  = 15 * time.Second       // between probes while an order waits for its next try; up to twice that
	probeAddrs  = 8                      // of a name
	probeAtOnce = 32                     // of a node; who finds no room within probeTime knows nothing
	publicPort  = 443
)

// lead is where a public name leads.
type lead struct {
	here     bool
	away     error // why not, or nil: nothing is known
	stranger bool  // somebody else answers there; otherwise the authority may yet come through where this node does not
}

// errStranger says that somebody answers who is no node of this cluster.
var errStranger = errors.New("a certificate of somebody else is shown")

// explain puts what is wrong with the name before what the authority says about it.
func (l lead) explain(err error) error {
	if l.away == nil || err == nil {
		return err
	}
	return fmt.Errorf("%w; %w", l.away, err)
}

// seek probes until name leads to this cluster, or nothing can be known, or it has taken too long.
func (c *Certs) seek(ctx context.Context, name string) lead {
	if c.SolvesDNS() {
		return lead{} // no authority, or not every one, looks at where the name leads
	}
	for end := time.Now().Add(probeWait); ; {
		next := time.NewTimer(probePause)
		l := c.probe(ctx, name)
		if l.away == nil || !time.Now().Before(end) {
			next.Stop()
			return l
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			next.Stop()
			return l
		}
	}
}

// probe looks once. One address that leads here is enough: which one an authority takes nobody can say.
func (c *Certs) probe(ctx context.Context, name string) lead {
	select {
	case c.probes <- struct{}{}:
		defer func() { <-c.probes }()
	case <-time.After(probeTime):
		return lead{}
	case <-ctx.Done():
		return lead{}
	}
	addrs := c.addrs(ctx, name)
	if len(addrs) == 0 {
		return lead{}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	results := make(chan error, len(addrs))
	for _, addr := range addrs {
		go func() { results <- c.visit(ctx, name, netip.AddrPortFrom(addr, publicPort)) }()
	}
	var l lead
	for range addrs {
		err := <-results
		l.stranger = l.stranger || errors.Is(err, errStranger)
		switch {
		case err == nil:
			l.here = true
			cancel()
		case l.away == nil:
			l.away = err
		}
	}
	if l.here {
		l.away, l.stranger = nil, false
	}
	return l
}

// addrs returns the addresses of name, none if they cannot be found out.
func (c *Certs) addrs(ctx context.Context, name string) []netip.Addr {
	if ip, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{ip}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	addrs, err := c.Lookup(ctx, "ip", name)
	if err != nil {
		return nil // this resolver may know other names than the authority's
	}
	return addrs[:min(len(addrs), probeAddrs)]
}

// visit says why the node at addr is none of this cluster, nil if it is one.
func (c *Certs) visit(ctx context.Context, name string, addr netip.AddrPort) error {
	away := func(err error) error {
		return fmt.Errorf("%s leads to %s, which is no node of this cluster: %w", name, addr, err)
	}
	conn, err := c.Dial(ctx, "tcp", addr.String())
	if err != nil {
		return away(err)
	}
	defer conn.Close()
	client := tls.Client(conn, &tls.Config{
		ServerName: name,
		// Nothing is sent and nothing is believed but what the certificate looks like: a node that has none yet shows one that nobody
		// can verify, and a wrong answer makes this node order or wait.
		InsecureSkipVerify: true,
	})
	if err := client.HandshakeContext(ctx); err != nil {
		return away(err)
	}
	leaf := client.ConnectionState().PeerCertificates[0]
	if !c.ours(name, leaf) {
		return away(fmt.Errorf("%w: %.100q", errStranger, leaf.Subject.CommonName))
	}
	return nil
}

// watch returns what tells, asked again and again, whether name leads here by now. It looks only now and then, and calls away if it does not.
func (c *Certs) watch(name string, away func(lead)) func(context.Context) bool {
	pause := func() time.Time { return time.Now().Add(probeAgain + rand.N(probeAgain)) }
	next := pause()
	return func(ctx context.Context) bool {
		if time.Now().Before(next) {
			return false
		}
		l := c.probe(ctx, name)
		next = pause()
		if l.away != nil {
			away(l)
		}
		return l.here
	}
}
