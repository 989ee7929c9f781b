package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/internal/lab"
)

const (
	domain = "api.flotilla.test" // ".test" is reserved for this: RFC 6761, section 6.2
	email  = "harbour.master@flotilla.test"
)

// The time that each step may take before the demonstration gives up. On an idle machine no step
// takes a tenth of it.
const (
	formTimeout   = 30 * time.Second
	issueTimeout  = 60 * time.Second
	leaderTimeout = 20 * time.Second
	readyTimeout  = 30 * time.Second
	loadTimeout   = 15 * time.Second
)

// demo is the whole demonstration.
type demo struct {
	scr     *screen
	begun   time.Time
	cluster *cluster
	ca      *lab.Authority
	https   *balancer
	roots   *x509.CertPool // of the authority
	load    *load          // nil until act 2

	results []result
}

// runDemo runs the five acts. The files of the nodes are in dir. It returns true if every line of
// the closing table held. An error means that it could not go on.
func runDemo(ctx context.Context, scr *screen, dir string, opts options) (bool, error) {
	var stderr sync.Mutex
	logs := func(name string) io.Writer {
		if !opts.verbose {
			return nil
		}
		return prefixer{w: os.Stderr, mu: &stderr, prefix: name}
	}
	d := &demo{scr: scr, begun: time.Now()}
	scr.text(scr.paint(bold, "flotilla: three processes, one certificate, a killed leader, no request lost"))

	// The ports of the nodes come first. The balancers need to know them, the authority the
	// balancers, and the nodes the authority.
	var err error
	if d.cluster, err = newCluster(dir, logs, "alpha", "bravo", "charlie"); err != nil {
		return false, err
	}
	defer d.cluster.close()
	if d.https, err = startBalancer("127.0.0.1:0", d.cluster.addrs(func(p ports) int { return p.TLS })...); err != nil {
		return false, err
	}
	defer d.https.close()
	http, err := startBalancer("127.0.0.1:0", d.cluster.addrs(func(p ports) int { return p.HTTP })...)
	if err != nil {
		return false, err
	}
	defer http.close()
	caLog := logs("ca")
	if caLog == nil {
		caLog = io.Discard
	}
	where := func(name string) net.IP { // the balancers have this address
		if name != domain {
			return nil
		}
		return net.IPv4(127, 0, 0, 1)
	}
	if d.ca, err = lab.StartAuthority(http.port(), d.https.port(), where, caLog, nil); err != nil {
		return false, err
	}
	defer d.ca.Close()
	d.roots = x509.NewCertPool()
	d.roots.AddCert(d.ca.Root)
	for _, m := range d.cluster.members {
		m.settings.Domain, m.settings.Email = domain, email
		m.settings.CA, m.settings.Roots = d.ca.URL, d.ca.Endpoint
	}

	defer func() {
		if d.load != nil {
			d.load.close()
		}
	}()
	leaf, err := d.form(ctx)
	if err != nil {
		return false, err
	}
	for _, act := range []func() error{
		func() error { return d.killLeader(ctx) },
		func() error { return d.restartAll(ctx, leaf) },
		func() error { return d.search(ctx, leaf) },
	} {
		if err := act(); err != nil {
			return false, err
		}
	}
	held := d.close()
	if opts.dir != "" {
		scr.text("\n   the nodes' files are in " + dir)
	}
	if opts.keep {
		return held, d.keep(ctx)
	}
	return held, nil
}

// keep leaves everything running until ctx ends, and prints how to use it.
func (d *demo) keep(ctx context.Context) error {
	tmp, err := os.MkdirTemp("", "flotilla-quickstart-ca-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.ca.Root.Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	port := d.https.port()
	d.scr.text(fmt.Sprintf("\nEverything is still running. Ask it, as often as you like:\n\n"+
		"   curl --cacert %s --resolve %s:%d:127.0.0.1 https://%s:%d/\n", file, domain, port, domain, port))
	for _, m := range d.cluster.members {
		d.scr.line(m.Name(), "process %d, http://%s/status", m.PID(), local(m.settings.Ports.Health))
	}
	d.scr.text("\nctrl-C ends it.")
	<-ctx.Done()
	return context.Cause(ctx)
}

// await calls ask until it has no error, for at most limit. It gives up earlier if one of the
// processes that ask needs has ended.
func (d *demo) await(
	ctx context.Context, label, what string, limit time.Duration, needed []*member,
	ask func(context.Context) error,
) error {
	begun := time.Now()
	for {
		asked := time.Now()
		err := ask(ctx)
		if err == nil {
			return nil
		}
		for _, m := range needed {
			if !m.Running() {
				return fmt.Errorf("waiting for %s: node %s has ended (%s)%s", what, m.Name(), m.Ended(), m.lastLines())
			}
		}
		if time.Since(begun) > limit {
			err = fmt.Errorf("waited %s for %s: %w", limit, what, err)
			for _, m := range needed {
				err = fmt.Errorf("%w\nnode %s%s", err, m.Name(), m.lastLines())
			}
			return err
		}
		d.scr.moving(label, "%s %.1f s%s", what, time.Since(begun).Seconds(), d.traffic())
		// Often enough to measure milliseconds, without keeping the machine busy.
		pause := max(5*time.Millisecond, 3*time.Since(asked))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// watch lets the load go on for a period.
func (d *demo) watch(ctx context.Context, period time.Duration) error {
	until := time.Now().Add(period)
	return d.await(ctx, "requests", "going on", period+loadTimeout, nil, func(context.Context) error {
		if left := time.Until(until); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
}

// traffic describes the load so far, for the moving line.
func (d *demo) traffic() string {
	if d.load == nil {
		return ""
	}
	t := d.load.now()
	return fmt.Sprintf(" · %d requests, %d failed, %d retried", t.sent, t.failed, t.retried)
}

// leader returns the leader that one of the given nodes knows, and the status of that node.
func (d *demo) leader(ctx context.Context, of []*member) (*member, flotilla.Status, error) {
	err := errors.New("no node was asked")
	for _, m := range of {
		var st flotilla.Status
		if st, err = m.status(ctx); err != nil {
			continue
		}
		i := slices.IndexFunc(d.cluster.members, func(m *member) bool { return m.Name() == st.LeaderName })
		if i < 0 {
			err = fmt.Errorf("node %s knows no leader", m.Name())
			continue
		}
		return d.cluster.members[i], st, nil
	}
	return nil, flotilla.Status{}, err
}

// others returns all nodes except m.
func (d *demo) others(m *member) []*member {
	return slices.DeleteFunc(slices.Clone(d.cluster.members), func(o *member) bool { return o == m })
}

// caughtUp returns no error if m is ready, has applied what the leader had, and serves. A node is
// ready a moment before it listens, so caughtUp also asks its TLS port.
func (d *demo) caughtUp(ctx context.Context, m *member) (index uint64, err error) {
	if err := m.ready(ctx); err != nil {
		return 0, err
	}
	leader, _, err := d.leader(ctx, d.cluster.members)
	if err != nil {
		return 0, err
	}
	want, err := leader.status(ctx)
	if err != nil {
		return 0, err
	}
	have, err := m.status(ctx)
	if err == nil && have.Index < want.Index {
		err = fmt.Errorf("it is at index %d, the leader at %d", have.Index, want.Index)
	}
	if err == nil {
		_, err = d.leafOf(ctx, m)
	}
	return have.Index, err
}

// leafOf returns the certificate of a node, if clients would trust it. It asks the node itself,
// without the balancer.
func (d *demo) leafOf(ctx context.Context, m *member) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: d.roots, ServerName: domain}}
	conn, err := dialer.DialContext(ctx, "tcp", local(m.settings.Ports.TLS))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// servesAll returns no error if all nodes show the same trusted certificate. It returns the
// certificate, and the number of nodes that show it.
func (d *demo) servesAll(ctx context.Context) (leaf *x509.Certificate, n int, err error) {
	for _, m := range d.cluster.members {
		c, err := d.leafOf(ctx, m)
		if err != nil {
			return leaf, n, fmt.Errorf("node %s: %w", m.Name(), err)
		}
		if leaf != nil && !c.Equal(leaf) {
			return leaf, n, fmt.Errorf("node %s shows another certificate", m.Name())
		}
		leaf = c
		n++
	}
	return leaf, n, nil
}
