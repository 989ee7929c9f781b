package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla"
)

// note adds a line to the closing table.
func (s *stage) note(held bool, what, want, seen string, args ...any) {
	s.results = append(s.results, result{what: what, want: want, seen: fmt.Sprintf(seen, args...), held: held})
}

// form is act 1: three nodes that have never met become a cluster, and obtain one certificate. It returns the certificate.
func (s *stage) form(ctx context.Context) (*x509.Certificate, error) {
	s.scr.act(1, "Form a cluster, obtain a certificate")
	s.scr.line("authority", "Pebble at %s; it proves the name through the balancer", strings.TrimPrefix(s.ca.URL, "https://"))
	s.scr.line("balancer", "127.0.0.1:%d hands connections to the nodes in turn, and looks at nothing", s.https.port())

	begun := time.Now()
	for _, m := range s.fleet.members {
		if err := m.start(); err != nil {
			return nil, err
		}
	}
	var leader *member
	var status flotilla.Status
	err := s.await(ctx, "cluster", "three nodes to be ready", formTimeout, s.fleet.members, func(ctx context.Context) (err error) {
		for _, m := range s.fleet.members {
			if err := m.ready(ctx); err != nil {
				return fmt.Errorf("node %s: %w", m.name(), err)
			}
		}
		if leader, status, err = s.leader(ctx, s.fleet.members); err != nil {
			return err
		}
		if len(status.Members) < len(s.fleet.members) {
			return fmt.Errorf("the cluster has %d members", len(status.Members))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	formed := time.Since(begun)
	var names []string
	voters := 0
	for _, m := range status.Members {
		names = append(names, m.Name)
		if m.Voter {
			voters++
		}
	}
	s.scr.line("cluster", "%s are one after %s; %s leads, term %d", list(names), span(formed), leader.name(), status.Term)
	s.note(voters == 3, "voting members of the cluster", "3", "%d after %s", voters, span(formed))

	var leaf *x509.Certificate
	served := 0
	err = s.await(ctx, "certificate", "the certificate on every node", issueTimeout, s.fleet.members, func(ctx context.Context) (err error) {
		leaf, served, err = s.servesAll(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w\nthe authority has had %d orders", err, s.ca.Orders.Load())
	}
	s.scr.line("orders", "%d at the authority, for %s", s.ca.Orders.Load(), domain)
	s.scr.line("certificate", "serial %s, after %s, until %s", serial(leaf), span(time.Since(begun)), leaf.NotAfter.Format(time.DateOnly))
	s.scr.line("served by", "%s: the same on all, each asked directly", list(names))
	s.note(served == 3, "nodes that serve the same certificate", "3", "%d", served)
	return leaf, nil
}

// killLeader is act 2: the leader dies under load.
func (s *stage) killLeader(ctx context.Context) error {
	s.scr.act(2, "Kill the leader with SIGKILL, under load")
	s.load = startLoad(ctx, domain, local(s.https.port()), s.roots)
	s.scr.line("clients", "%d without pause through the balancer, half with a new connection for each request", clients)
	err := s.await(ctx, "requests", "the first 200 answers", loadTimeout, s.fleet.members, func(context.Context) error {
		if t := s.load.now(); t.sent-t.failed < 200 {
			return fmt.Errorf("%d of %d requests failed (%v)", t.failed, t.sent, t.err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	old, before, err := s.leader(ctx, s.fleet.members)
	if err != nil {
		return err
	}

	killed := time.Now()
	old.kill()
	var leader *member
	var after flotilla.Status
	err = s.await(ctx, "leader", "a new leader", leaderTimeout, s.others(old), func(ctx context.Context) (err error) {
		if leader, after, err = s.leader(ctx, s.others(old)); err != nil {
			return err
		}
		if leader == old || after.Leader == before.Leader {
			return fmt.Errorf("%s is still taken for the leader", old.name())
		}
		return nil
	})
	if err != nil {
		return err
	}
	took := time.Since(killed)
	s.scr.line("killed", "%s, process %d, leader of term %d", old.name(), old.cmd.Process.Pid, before.Term)
	s.scr.line("leader", "%s after %s, term %d", leader.name(), span(took), after.Term)
	if err := s.watch(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	t := s.load.take()
	s.requests(t)
	s.note(leader != old, "a new leader", "yes", "%s after %s", leader.name(), span(took))
	s.note(t.failed == 0 && t.sent > 0, "requests failed while the leader was killed", "0", "%d of %d", t.failed, t.sent)
	return nil
}

// restartAll is act 3: the killed node comes back, then each is restarted in its turn, and no client notices.
func (s *stage) restartAll(ctx context.Context, leaf *x509.Certificate) error {
	s.scr.act(3, "Bring it back, then restart all three, under the same load")
	for _, m := range s.fleet.members {
		if m.running() {
			continue
		}
		index, took, err := s.restart(ctx, m)
		if err != nil {
			return err
		}
		s.scr.line(m.name(), "is back and has caught up, at index %d, after %s", index, span(took))
		s.note(true, "the killed node caught up", "yes", "after %s", span(took))
	}
	for _, m := range s.fleet.members {
		begun := time.Now()
		leader, _, err := s.leader(ctx, s.fleet.members)
		if err != nil {
			return err
		}
		s.scr.moving(m.name(), "SIGTERM%s", s.traffic())
		if err := m.terminate(ctx); err != nil {
			return err
		}
		down := time.Since(begun)
		_, up, err := s.restart(ctx, m)
		if err != nil {
			return err
		}
		role := ""
		if m == leader {
			role = ", as the leader"
		}
		s.scr.line(m.name(), "ended %s after SIGTERM%s; caught up %s after its start", span(down), role, span(up))
		if err := s.watch(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	served := 0
	err := s.await(ctx, "certificate", "the certificate on every node", readyTimeout, s.fleet.members, func(ctx context.Context) error {
		now, n, err := s.servesAll(ctx)
		if err == nil && !now.Equal(leaf) {
			err = errors.New("it is another one")
		}
		served = n
		return err
	})
	if err != nil {
		return err
	}
	if err := s.watch(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	t := s.load.take()
	s.load.close()
	s.load = nil
	s.requests(t)
	s.note(t.failed == 0 && t.sent > 0, "requests failed in the rolling restart", "0", "%d of %d", t.failed, t.sent)
	s.note(t.retried == 0, "requests retried in the rolling restart", "0", "%d", t.retried)
	s.note(served == 3, "nodes that serve it still", "3", "%d", served)
	orders := s.ca.Orders.Load()
	s.note(orders == 1, "orders placed at the authority in all", "1", "%d", orders)
	return nil
}

// restart starts a node that has ended and waits until it has caught up. It returns the index that it has reached, and how long
// that took.
func (s *stage) restart(ctx context.Context, m *member) (index uint64, took time.Duration, err error) {
	begun := time.Now()
	if err := m.start(); err != nil {
		return 0, 0, err
	}
	what := "node " + m.name() + " to catch up"
	err = s.await(ctx, m.name(), what, readyTimeout, []*member{m}, func(ctx context.Context) (err error) {
		index, err = s.caughtUp(ctx, m)
		return err
	})
	return index, time.Since(begun), err
}

// requests writes a tally.
func (s *stage) requests(t tally) {
	s.scr.line("requests", "%d sent, %d failed, %d retried; longest gap between two answers %s", t.sent, t.failed, t.retried, span(t.gap))
	if t.err != nil {
		s.scr.line("", "the last failure: %v", t.err)
	}
	if t.cause != nil {
		s.scr.line("", "the last retry: %v", t.cause)
	}
}

// search is act 4: nothing that identifies or opens the cluster is in any file of any node.
func (s *stage) search(leaf *x509.Certificate) error {
	s.scr.act(4, "Look through the disks")
	keys, err := s.fleet.members[0].keys()
	if err != nil {
		return fmt.Errorf("node %s does not tell its keys: %w", s.fleet.members[0].name(), err)
	}
	list, err := needles(domain, email, s.fleet.secret.Encode(), leaf, keys)
	if err != nil {
		return err
	}
	missed, err := control(list)
	if err != nil {
		return err
	}
	s.scr.line("wanted", "%d things: domain, e-mail, PEM, certificate, %d private keys, secret,", len(list), len(keys))
	s.scr.line("", "as they are, in hex and in base64")
	s.scr.line("control", "%d of %d found where each was planted in a file", len(list)-len(missed), len(list))
	for _, what := range missed {
		s.scr.line("", "not found: %s", what)
	}
	found := 0
	looked := true
	for _, m := range s.fleet.members {
		seen, err := scan(m.settings.Dir, list)
		if err != nil {
			return err
		}
		s.scr.line(m.name(), "%d found in %d files, %s", len(seen.findings), seen.files, size(seen.bytes))
		for _, f := range seen.findings {
			s.scr.line("", "%s: %s", filepath.Base(f.file), f.what)
		}
		found += len(seen.findings)
		looked = looked && seen.files > 0 && seen.bytes > int64(len(leaf.Raw))
	}
	s.note(len(missed) == 0, "planted things found by the search", fmt.Sprint(len(list)), "%d", len(list)-len(missed))
	s.note(found == 0 && looked, "of these found in the nodes' files", "0", "%d", found)
	return nil
}

// close is act 5: what was promised, and what was seen. It reports whether all of it held.
func (s *stage) close() bool {
	s.scr.act(5, "What was promised, and what was seen")
	held := s.scr.table(s.results)
	if held {
		s.scr.text(fmt.Sprintf("\n   Every line held. All of it took %s.", span(time.Since(s.begun))))
	} else {
		s.scr.text("\n   Not every line held.")
	}
	return held
}

// list joins names as in a sentence.
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// serial writes a certificate's serial number so that two can be told apart.
func serial(c *x509.Certificate) string {
	text := fmt.Sprintf("%x", c.SerialNumber)
	if len(text) > 12 {
		return text[:6] + "…" + text[len(text)-6:]
	}
	return text
}
