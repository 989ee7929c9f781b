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

// How long each thing may take before the show gives up and says what it has waited for. On a machine with nothing else to do
// none takes a tenth of it.
const (
	formTimeout   = 30 * time.Second
	issueTimeout  = 60 * time.Second
	leaderTimeout = 20 * time.Second
	readyTimeout  = 30 * time.Second
	loadTimeout   = 15 * time.Second
)

// stage is everything that the show takes place on.
type stage struct {
	scr   *screen
	begun time.Time
	fleet *fleet
	ca    *lab.Authority
	https *balancer
	roots *x509.CertPool // the authority's
	load  *load          // nil until act 2

	results []result
}

// show runs the five acts with the nodes' files in dir. It reports whether every line of the closing table held; an error means
// that the show could not go on.
func show(ctx context.Context, scr *screen, dir string, opts options) (bool, error) {
	var stderr sync.Mutex
	logs := func(name string) io.Writer {
		if !opts.verbose {
			return nil
		}
		return prefixer{w: os.Stderr, mu: &stderr, prefix: name}
	}
	s := &stage{scr: scr, begun: time.Now()}
	scr.text(scr.paint(bold, "flotilla: three processes, one certificate, a killed leader, no request lost"))

	// The nodes' ports are picked first: the balancers must know them, the authority must know the balancers, and the nodes
	// the authority.
	var err error
	if s.fleet, err = newFleet(dir, logs, "alpha", "bravo", "charlie"); err != nil {
		return false, err
	}
	defer s.fleet.close()
	if s.https, err = startBalancer("127.0.0.1:0", s.fleet.addrs(func(p ports) int { return p.TLS })...); err != nil {
		return false, err
	}
	defer s.https.close()
	http, err := startBalancer("127.0.0.1:0", s.fleet.addrs(func(p ports) int { return p.HTTP })...)
	if err != nil {
		return false, err
	}
	defer http.close()
	caLog := logs("ca")
	if caLog == nil {
		caLog = io.Discard
	}
	where := func(name string) net.IP { // the balancers are
		if name != domain {
			return nil
		}
		return net.IPv4(127, 0, 0, 1)
	}
	if s.ca, err = lab.StartAuthority(http.port(), s.https.port(), where, caLog, nil); err != nil {
		return false, err
	}
	defer s.ca.Close()
	s.roots = x509.NewCertPool()
	s.roots.AddCert(s.ca.Root)
	for _, m := range s.fleet.members {
		m.settings.Domain, m.settings.Email = domain, email
		m.settings.CA, m.settings.Roots = s.ca.URL, s.ca.Endpoint
	}

	defer func() {
		if s.load != nil {
			s.load.close()
		}
	}()
	leaf, err := s.form(ctx)
	if err != nil {
		return false, err
	}
	for _, act := range []func() error{
		func() error { return s.killLeader(ctx) },
		func() error { return s.restartAll(ctx, leaf) },
		func() error { return s.search(leaf) },
	} {
		if err := act(); err != nil {
			return false, err
		}
	}
	held := s.close()
	if opts.dir != "" {
		scr.text("\n   the nodes' files are in " + dir)
	}
	if opts.keep {
		return held, s.keep(ctx)
	}
	return held, nil
}

// keep leaves everything running, and says how to use it, until ctx ends.
func (s *stage) keep(ctx context.Context) error {
	tmp, err := os.MkdirTemp("", "flotilla-quickstart-ca-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Root.Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	port := s.https.port()
	s.scr.text(fmt.Sprintf("\nEverything is still running. Ask it, as often as you like:\n\n"+
		"   curl --cacert %s --resolve %s:%d:127.0.0.1 https://%s:%d/\n", file, domain, port, domain, port))
	for _, m := range s.fleet.members {
		s.scr.line(m.name(), "process %d, http://%s/status", m.cmd.Process.Pid, local(m.settings.Ports.Health))
	}
	s.scr.text("\nctrl-C ends it.")
	<-ctx.Done()
	return context.Cause(ctx)
}

// await asks until ask has no error, for at most limit. It ends early if one of needed, processes that ask depends on, ends.
func (s *stage) await(ctx context.Context, label, what string, limit time.Duration, needed []*member, ask func(context.Context) error) error {
	begun := time.Now()
	for {
		asked := time.Now()
		err := ask(ctx)
		if err == nil {
			return nil
		}
		for _, m := range needed {
			if !m.running() {
				return fmt.Errorf("node %s has ended (%s) while %s was waited for%s", m.name(), m.cmd.ProcessState, what, m.log.last())
			}
		}
		if time.Since(begun) > limit {
			err = fmt.Errorf("waited %s for %s: %w", limit, what, err)
			for _, m := range needed {
				err = fmt.Errorf("%w\nnode %s%s", err, m.name(), m.log.last())
			}
			return err
		}
		s.scr.moving(label, "%s %.1f s%s", what, time.Since(begun).Seconds(), s.traffic())
		// Often enough to measure milliseconds, but the asking should not be what the machine is busy with.
		pause := max(5*time.Millisecond, 3*time.Since(asked))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// watch lets the load go on for d.
func (s *stage) watch(ctx context.Context, d time.Duration) error {
	until := time.Now().Add(d)
	return s.await(ctx, "requests", "going on", d+loadTimeout, nil, func(context.Context) error {
		if left := time.Until(until); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
}

// traffic is the load so far, for the moving line.
func (s *stage) traffic() string {
	if s.load == nil {
		return ""
	}
	t := s.load.now()
	return fmt.Sprintf(" · %d requests, %d failed, %d retried", t.sent, t.failed, t.retried)
}

// leader returns the leader that one of the given nodes knows, and what it says.
func (s *stage) leader(ctx context.Context, of []*member) (*member, flotilla.Status, error) {
	err := errors.New("nobody was asked")
	for _, m := range of {
		var st flotilla.Status
		if st, err = m.status(ctx); err != nil {
			continue
		}
		i := slices.IndexFunc(s.fleet.members, func(m *member) bool { return m.name() == st.LeaderName })
		if i < 0 {
			err = fmt.Errorf("node %s knows no leader", m.name())
			continue
		}
		return s.fleet.members[i], st, nil
	}
	return nil, flotilla.Status{}, err
}

// others returns the nodes besides m.
func (s *stage) others(m *member) []*member {
	return slices.DeleteFunc(slices.Clone(s.fleet.members), func(o *member) bool { return o == m })
}

// caughtUp has no error once m is ready, has applied what the leader had, and serves. A node says that it is ready a moment before
// it listens, so its TLS port is asked too.
func (s *stage) caughtUp(ctx context.Context, m *member) (index uint64, err error) {
	if err := m.ready(ctx); err != nil {
		return 0, err
	}
	leader, _, err := s.leader(ctx, s.fleet.members)
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
		_, err = s.leafOf(ctx, m)
	}
	return have.Index, err
}

// leafOf returns the certificate that a node shows to clients, if they would trust it. It asks the node itself, without the
// balancer.
func (s *stage) leafOf(ctx context.Context, m *member) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: s.roots, ServerName: domain}}
	conn, err := dialer.DialContext(ctx, "tcp", local(m.settings.Ports.TLS))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// servesAll is nil once every node shows the same trusted certificate, which it returns with the number of nodes that show it.
func (s *stage) servesAll(ctx context.Context) (leaf *x509.Certificate, n int, err error) {
	for _, m := range s.fleet.members {
		c, err := s.leafOf(ctx, m)
		if err != nil {
			return leaf, n, fmt.Errorf("node %s: %w", m.name(), err)
		}
		if leaf != nil && !c.Equal(leaf) {
			return leaf, n, fmt.Errorf("node %s shows another certificate", m.name())
		}
		leaf = c
		n++
	}
	return leaf, n, nil
}
