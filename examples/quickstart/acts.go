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

// record adds a line to the closing table.
func (d *demo) record(held bool, what, want, seen string, args ...any) {
	d.results = append(d.results, result{what: what, want: want, seen: fmt.Sprintf(seen, args...), held: held})
}

// form is act 1: three new nodes form a cluster and obtain one certificate. It returns the
// certificate.
func (d *demo) form(ctx context.Context) (*x509.Certificate, error) {
	d.scr.act(1, "Form a cluster, obtain a certificate")
	d.scr.line("authority", "Pebble at %s; it validates the name through the balancer", strings.TrimPrefix(d.ca.URL, "https://"))
	d.scr.line("balancer", "127.0.0.1:%d sends connections to the nodes in turn, without health checks", d.https.port())

	begun := time.Now()
	for _, m := range d.cluster.members {
		if err := m.start(); err != nil {
			return nil, err
		}
	}
	var leader *member
	var status flotilla.Status
	err := d.await(ctx, "cluster", "three nodes to be ready", formTimeout, d.cluster.members, func(ctx context.Context) (err error) {
		for _, m := range d.cluster.members {
			if err := m.ready(ctx); err != nil {
				return fmt.Errorf("node %s: %w", m.Name(), err)
			}
		}
		if leader, status, err = d.leader(ctx, d.cluster.members); err != nil {
			return err
		}
		if len(status.Members) < len(d.cluster.members) {
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
	d.scr.line("cluster", "%s formed it after %s; %s leads, term %d", list(names), span(formed), leader.Name(), status.Term)
	d.record(voters == 3, "voting members of the cluster", "3", "%d after %s", voters, span(formed))

	var leaf *x509.Certificate
	served := 0
	err = d.await(ctx, "certificate", "the certificate on every node", issueTimeout, d.cluster.members, func(ctx context.Context) (err error) {
		leaf, served, err = d.servesAll(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w\nthe authority has got %d orders", err, d.ca.Orders.Load())
	}
	d.scr.line("orders", "%d at the authority, for %s", d.ca.Orders.Load(), domain)
	d.scr.line("certificate", "serial %s, after %s, until %s", serial(leaf), span(time.Since(begun)), leaf.NotAfter.Format(time.DateOnly))
	d.scr.line("served by", "%s: the same on all, each asked directly", list(names))
	d.record(served == 3, "nodes that serve the same certificate", "3", "%d", served)
	return leaf, nil
}

// killLeader is act 2: the leader dies under load.
func (d *demo) killLeader(ctx context.Context) error {
	d.scr.act(2, "Kill the leader with SIGKILL, under load")
	d.load = startLoad(ctx, domain, local(d.https.port()), d.roots)
	d.scr.line("clients", "%d without pause through the balancer, half with a new connection for each request", clients)
	err := d.await(ctx, "requests", "the first 200 answers", loadTimeout, d.cluster.members, func(context.Context) error {
		if t := d.load.now(); t.sent-t.failed < 200 {
			return fmt.Errorf("%d of %d requests failed (%v)", t.failed, t.sent, t.err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	old, before, err := d.leader(ctx, d.cluster.members)
	if err != nil {
		return err
	}

	killed := time.Now()
	old.Kill()
	var leader *member
	var after flotilla.Status
	err = d.await(ctx, "leader", "a new leader", leaderTimeout, d.others(old), func(ctx context.Context) (err error) {
		if leader, after, err = d.leader(ctx, d.others(old)); err != nil {
			return err
		}
		if leader == old || after.Leader == before.Leader {
			return fmt.Errorf("%s still counts as the leader", old.Name())
		}
		return nil
	})
	if err != nil {
		return err
	}
	took := time.Since(killed)
	d.scr.line("killed", "%s, process %d, leader of term %d", old.Name(), old.PID(), before.Term)
	d.scr.line("leader", "%s after %s, term %d", leader.Name(), span(took), after.Term)
	if err := d.watch(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	t := d.load.take()
	d.requests(t)
	d.record(leader != old, "a new leader", "yes", "%s after %s", leader.Name(), span(took))
	d.record(t.failed == 0 && t.sent > 0, "requests failed while the leader was killed", "0", "%d of %d", t.failed, t.sent)
	return nil
}

// restartAll is act 3: the killed node comes back, then each node restarts in turn, and no client
// notices.
func (d *demo) restartAll(ctx context.Context, leaf *x509.Certificate) error {
	d.scr.act(3, "Bring it back, then restart all three, under the same load")
	for _, m := range d.cluster.members {
		if m.Running() {
			continue
		}
		index, took, err := d.restart(ctx, m)
		if err != nil {
			return err
		}
		d.scr.line(m.Name(), "is back and has caught up, at index %d, after %s", index, span(took))
		d.record(true, "the killed node caught up", "yes", "after %s", span(took))
	}
	for _, m := range d.cluster.members {
		begun := time.Now()
		leader, _, err := d.leader(ctx, d.cluster.members)
		if err != nil {
			return err
		}
		d.scr.moving(m.Name(), "SIGTERM%s", d.traffic())
		if err := m.terminate(ctx); err != nil {
			return err
		}
		down := time.Since(begun)
		_, up, err := d.restart(ctx, m)
		if err != nil {
			return err
		}
		role := ""
		if m == leader {
			role = ", as the leader"
		}
		d.scr.line(m.Name(), "ended %s after SIGTERM%s; caught up %s after its start", span(down), role, span(up))
		if err := d.watch(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	served := 0
	err := d.await(ctx, "certificate", "the certificate on every node", readyTimeout, d.cluster.members, func(ctx context.Context) error {
		now, n, err := d.servesAll(ctx)
		if err == nil && !now.Equal(leaf) {
			err = errors.New("it is another certificate")
		}
		served = n
		return err
	})
	if err != nil {
		return err
	}
	if err := d.watch(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	t := d.load.take()
	d.load.close()
	d.load = nil
	d.requests(t)
	d.record(t.failed == 0 && t.sent > 0, "requests failed in the rolling restart", "0", "%d of %d", t.failed, t.sent)
	d.record(t.retried == 0, "requests retried in the rolling restart", "0", "%d", t.retried)
	d.record(served == 3, "nodes that serve it still", "3", "%d", served)
	orders := d.ca.Orders.Load()
	d.record(orders == 1, "orders placed at the authority in all", "1", "%d", orders)
	return nil
}

// restart starts a node that has ended, and waits until it has caught up. It returns the index that
// the node has reached, and the time that this took.
func (d *demo) restart(ctx context.Context, m *member) (index uint64, took time.Duration, err error) {
	begun := time.Now()
	if err := m.start(); err != nil {
		return 0, 0, err
	}
	what := "node " + m.Name() + " to catch up"
	err = d.await(ctx, m.Name(), what, readyTimeout, []*member{m}, func(ctx context.Context) (err error) {
		index, err = d.caughtUp(ctx, m)
		return err
	})
	return index, time.Since(begun), err
}

// requests writes a tally.
func (d *demo) requests(t tally) {
	d.scr.line("requests", "%d sent, %d failed, %d retried; longest gap between two answers %s", t.sent, t.failed, t.retried, span(t.gap))
	if t.err != nil {
		d.scr.line("", "the last failure: %v", t.err)
	}
	if t.cause != nil {
		d.scr.line("", "the last retry: %v", t.cause)
	}
}

// search is act 4: no file of any node contains anything that identifies or opens the cluster.
func (d *demo) search(ctx context.Context, leaf *x509.Certificate) error {
	d.scr.act(4, "Look through the disks")
	keys, err := d.cluster.members[0].keys(ctx)
	if err != nil {
		return fmt.Errorf("node %s does not return its keys: %w", d.cluster.members[0].Name(), err)
	}
	list, err := needles(domain, email, d.cluster.secret.Encode(), leaf, keys)
	if err != nil {
		return err
	}
	missed, err := control(list)
	if err != nil {
		return err
	}
	d.scr.line("wanted", "%d things: domain, e-mail, PEM, certificate, %d private keys, secret,", len(list), len(keys))
	d.scr.line("", "as they are, in hex and in base64")
	d.scr.line("control", "%d of %d found where each was planted in a file", len(list)-len(missed), len(list))
	for _, what := range missed {
		d.scr.line("", "not found: %s", what)
	}
	found := 0
	looked := true
	for _, m := range d.cluster.members {
		seen, err := scan(m.settings.Dir, list)
		if err != nil {
			return err
		}
		d.scr.line(m.Name(), "%d found in %d files, %s", len(seen.findings), seen.files, size(seen.bytes))
		for _, f := range seen.findings {
			d.scr.line("", "%s: %s", filepath.Base(f.file), f.what)
		}
		found += len(seen.findings)
		looked = looked && seen.files > 0 && seen.bytes > int64(len(leaf.Raw))
	}
	d.record(len(missed) == 0, "planted things found by the search", fmt.Sprint(len(list)), "%d", len(list)-len(missed))
	d.record(found == 0 && looked, "of these found in the nodes' files", "0", "%d", found)
	return nil
}

// close is act 5: the table of the results. It returns true if every line held.
func (d *demo) close() bool {
	d.scr.act(5, "What was expected, and what was seen")
	held := d.scr.table(d.results)
	if held {
		d.scr.text(fmt.Sprintf("\n   Every line held. Everything took %s.", span(time.Since(d.begun))))
	} else {
		d.scr.text("\n   Not every line held.")
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
