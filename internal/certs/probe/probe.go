package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// Times of probes.
const (
	// to resolve the name, and again for all its addresses to show a certificate
	Timeout  = time.Second
	SeekTime = 5 * time.Second        // about how long an order waits until the name leads here
	Interval = 750 * time.Millisecond // from the beginning of one probe to that of the next
	// between probes while an order waits for its next try; up to twice that
	Again = 15 * time.Second

	maxAddrs   = 8  // of a name
	maxProbes  = 32 // of a node at once; a probe that gets no slot within Timeout knows nothing
	publicPort = 443
)

// Lead is where a public name leads. The zero Lead means that nothing is known.
type Lead struct {
	Here bool  // a node of this cluster answers
	Away error // why the name does not lead here; nil: nothing is known
	// Stranger says that a node of another cluster, or no node, answers there. Otherwise the
	// authority may still reach a node where this node does not.
	Stranger bool
}

// errStranger means that something answers that is not a node of this cluster.
var errStranger = errors.New("a certificate of somebody else is shown")

// Explain puts what is wrong with the name before what the authority says about it.
func (l Lead) Explain(err error) error {
	if l.Away == nil || err == nil {
		return err
	}
	return fmt.Errorf("%w; %w", l.Away, err)
}

// Network is how a test's network in memory looks names up and connects to addresses.
type Network interface {
	Lookup(ctx context.Context, network, host string) ([]netip.Addr, error)
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
}

// Config is what a prober needs. All functions are required.
type Config struct {
	Off    bool // probes know nothing: orders do not depend on where the names lead
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	// Ours reports whether a node of this cluster would show leaf to a client that asks for name.
	Ours func(name string, leaf *x509.Certificate) bool
}

// Prober probes names. Its methods are safe for concurrent use.
type Prober struct {
	Config
	slots chan struct{} // holds an element for each probe that is under way
}

// New returns a prober.
func New(cfg Config) *Prober { return &Prober{Config: cfg, slots: make(chan struct{}, maxProbes)} }

// Seek probes until name leads to this cluster, or nothing can be known, or SeekTime has passed.
func (p *Prober) Seek(ctx context.Context, name string) Lead {
	if p.Off {
		return Lead{}
	}
	for end := time.Now().Add(SeekTime); ; {
		next := time.NewTimer(Interval)
		l := p.Probe(ctx, name)
		if l.Away == nil || !time.Now().Before(end) {
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

// Probe looks once. One address that leads here is enough: it is not known which one an authority
// will choose.
func (p *Prober) Probe(ctx context.Context, name string) Lead {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-time.After(Timeout):
		return Lead{}
	case <-ctx.Done():
		return Lead{}
	}
	addrs := p.addrs(ctx, name)
	if len(addrs) == 0 {
		return Lead{}
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	results := make(chan error, len(addrs))
	for _, addr := range addrs {
		go func() { results <- p.visit(ctx, name, netip.AddrPortFrom(addr, publicPort)) }()
	}
	var l Lead
	for range addrs {
		err := <-results
		l.Stranger = l.Stranger || errors.Is(err, errStranger)
		switch {
		case err == nil:
			l.Here = true
			cancel()
		case l.Away == nil:
			l.Away = err
		}
	}
	if l.Here {
		l.Away, l.Stranger = nil, false
	}
	return l
}

// addrs returns the addresses of name, none if they cannot be found out.
func (p *Prober) addrs(ctx context.Context, name string) []netip.Addr {
	if ip, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{ip}
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	addrs, err := p.Lookup(ctx, "ip", name)
	if err != nil {
		return nil // this resolver may know other names than the authority's
	}
	return addrs[:min(len(addrs), maxAddrs)]
}

// visit returns why the machine at addr is not a node of this cluster, nil if it is one.
func (p *Prober) visit(ctx context.Context, name string, addr netip.AddrPort) error {
	away := func(err error) error {
		return fmt.Errorf("%s leads to %s, which is no node of this cluster: %w", name, addr, err)
	}
	conn, err := p.Dial(ctx, "tcp", addr.String())
	if err != nil {
		return away(err)
	}
	defer conn.Close()
	// A node without a certificate shows one that cannot be verified. See the package comment for
	// why it need not be.
	client := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := client.HandshakeContext(ctx); err != nil {
		return away(err)
	}
	leaf := client.ConnectionState().PeerCertificates[0]
	if !p.Ours(name, leaf) {
		return away(fmt.Errorf("%w: %.100q", errStranger, leaf.Subject.CommonName))
	}
	return nil
}

// Watch returns a function that reports whether name leads here by now. It may be called often and
// probes only once in a while. A probe that finds the name elsewhere calls away.
func (p *Prober) Watch(name string, away func(Lead)) func(context.Context) bool {
	pause := func() time.Time { return time.Now().Add(Again + rand.N(Again)) }
	next := pause()
	return func(ctx context.Context) bool {
		if p.Off || time.Now().Before(next) {
			return false
		}
		l := p.Probe(ctx, name)
		next = pause()
		if l.Away != nil {
			away(l)
		}
		return l.Here
	}
}
