package lease

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/script"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

var rewrite = flag.Bool("rewrite", false, "write the results into testdata")

// TestScripts runs the scripts in testdata. They describe what Managers do together. What a word of
// a script means is in the table of player.do.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Parallel(t)
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &player{t: t}
				defer p.end()
				script.Run(t, path, *rewrite, p.do)
			})
		})
	}
}

// player plays a script.
type player struct {
	t *testing.T
	*testCluster
}

func (p *player) end() {
	if p.testCluster != nil {
		p.close()
		p.testCluster = nil
	}
}

// do runs one line of a script and returns its outcome.
func (p *player) do(c *script.Command) string {
	words := map[string]func(*script.Command) string{
		"cluster":   p.cluster,
		"configure": p.configure,
		"wait":      p.wait,

		// cut A: nobody reaches A any more. cut A B: these two do not reach each other.
		"cut": p.cutLinks,
		"heal": func(*script.Command) string {
			p.heal()
			return ""
		},
		// elect A: it leads all that it reaches.
		"elect": func(c *script.Command) string {
			p.elect(c.Arg())
			return ""
		},
		// leaderless: nobody leads.
		"leaderless": func(*script.Command) string {
			p.follow("")
			return ""
		},
		// lag A: it applies nothing more. apply A: it applies all that there is.
		"lag": p.set(func(n *testNode) { n.lags = true }),
		"apply": func(c *script.Command) string {
			n := p.node(c.Arg())
			p.mu.Lock()
			n.lags = false
			p.mu.Unlock()
			p.replicate()
			return ""
		},
		// stall A: its disk hangs. disk-fails A: it does not take part. recover A: all is well.
		"stall":      p.set(func(n *testNode) { n.stalled = true }),
		"disk-fails": p.set(func(n *testNode) { n.cfg.Life.Setback.Store(&lifecycle.Setback{Err: errors.New("a disk")}) }),
		"recover": p.set(func(n *testNode) {
			n.stalled = false
			n.cfg.Life.Setback.Store(nil)
		}),
		// late A: it keeps writers waiting. expel A: an operator removes it.
		"late":   p.set(func(n *testNode) { n.late = true }),
		"prompt": p.set(func(n *testNode) { n.late = false }),
		"expel":  p.set(func(n *testNode) { n.expelled = true }),
		// pause A: its loop stands still, as if its process did. wake A: it goes on.
		"pause": p.set(func(n *testNode) { n.paused = make(chan struct{}) }),
		"wake": p.set(func(n *testNode) {
			close(n.paused)
			n.paused = nil
		}),

		// restart A: another process of it applies the log. catch-up A: a leader confirms that it has.
		"restart": func(c *script.Command) string {
			p.node(c.Arg()).restart()
			return ""
		},
		"catch-up": func(c *script.Command) string {
			p.node(c.Arg()).CatchUp()
			return ""
		},
		// open A: it gets another session.
		"open": func(c *script.Command) string {
			name := c.Arg()
			return fmt.Sprintf("%s: session %d", name, p.open(name))
		},
		// leave-session A: its own word ends its session.
		"leave-session": func(c *script.Command) string {
			name := c.Arg()
			p.commit(testEntry{command: &state.Command{Node: name, Change: state.LeaveSession{Number: p.newest().Number(name)}}})
			return ""
		},
		// suspect A, clear A: the leader does it, whatever its Manager thinks.
		"suspect": func(c *script.Command) string {
			name := c.Arg()
			p.change(state.Suspect{Node: name, Number: p.newest().Number(name)})
			return ""
		},
		"clear": func(c *script.Command) string {
			ses := p.newest().Session(c.Arg())
			p.change(state.ClearSuspicion{Node: p.nodeOf(ses), Number: ses.Number, Suspicion: ses.Suspect})
			return ""
		},
		"leaving": func(c *script.Command) string {
			n := p.node(c.Arg())
			n.cfg.Life.Leaving.Store(true)
			n.AnnounceLeaving()
			time.Sleep(2 * testLatency)
			return ""
		},

		"leases":   p.leases,
		"sessions": p.sessions,
		"grants":   p.grants,
		"expired":  p.expired,
		"ask":      p.ask,
		"deliver":  p.deliver,
		"hold":     p.hold,
		"role":     p.role,
	}
	run, ok := words[c.Name]
	if !ok {
		c.Fatalf("unknown; there are %v", slices.Sorted(maps.Keys(words)))
	}
	defer synctest.Wait()
	return run(c)
}

// set makes a word that changes nodes.
func (p *player) set(change func(n *testNode)) func(*script.Command) string {
	return func(c *script.Command) string {
		for _, name := range c.Args() {
			n := p.node(name)
			p.mu.Lock()
			change(n)
			p.mu.Unlock()
			n.Wake()
		}
		return ""
	}
}

func (p *player) nodeOf(ses *state.Session) (name string) {
	for node, other := range state.Each(p.newest().Sessions, nil) {
		if other == ses {
			name = string(node)
		}
	}
	return name
}

func split(text string, otherwise []string) []string {
	if text == "" {
		return otherwise
	}
	return strings.Split(text, ",")
}

// cluster A B C: a new cluster of these nodes. A leads. All vote, unless voters=A,B.
func (p *player) cluster(c *script.Command) string {
	p.end()
	names := c.Args()
	p.testCluster = newTestCluster(p.t, names, split(c.Option("voters", ""), names))
	p.takeEvents()
	return ""
}

// configure A B C: these are the members now. New ones are started and get a session.
func (p *player) configure(c *script.Command) string {
	names := c.Args()
	var fresh []string
	for _, name := range names {
		if !slices.ContainsFunc(p.nodes, func(n *testNode) bool { return n.name == name }) {
			p.start(name)
			fresh = append(fresh, name)
		}
	}
	p.follow(p.leader)
	p.commit(testEntry{servers: names, voters: split(c.Option("voters", ""), names)})
	for _, name := range fresh {
		p.open(name)
	}
	return ""
}

// wait TIME: prints what happens meanwhile, and when.
func (p *player) wait(c *script.Command) string {
	d, err := time.ParseDuration(c.Arg())
	if err != nil {
		c.Fatalf("%v", err)
	}
	start := time.Now()
	time.Sleep(d)
	synctest.Wait()
	var out strings.Builder
	for _, e := range p.takeEvents() {
		fmt.Fprintf(&out, "%v: %s\n", max(0, e.at.Sub(start)).Round(time.Millisecond), e.text)
	}
	return out.String()
}

func (p *player) cutLinks(c *script.Command) string {
	names := c.Args()
	for _, n := range p.nodes {
		if len(names) == 1 && n.name != names[0] {
			p.cut(names[0], n.name)
		}
	}
	if len(names) == 2 {
		p.cut(names[0], names[1])
	}
	return ""
}

// leases [A …]: which nodes may rely on a lease.
func (p *player) leases(c *script.Command) string {
	names := c.Args()
	var out []string
	for _, n := range p.nodes {
		if len(names) > 0 && !slices.Contains(names, n.name) {
			continue
		}
		session, end := n.own.until()
		switch {
		case n.Valid():
			out = append(out, fmt.Sprintf("%s: session %d", n.name, session))
		case time.Now().Before(end):
			out = append(out, n.name+": none to rely on, but not over")
		default:
			out = append(out, n.name+": none")
		}
	}
	return strings.Join(out, "\n")
}

// sessions: as the leader's state has them.
func (p *player) sessions(*script.Command) string {
	var out []string
	for node, ses := range state.Each(p.newest().Sessions, nil) {
		line := fmt.Sprintf("%s: session %d", node, ses.Number)
		if ses.Suspect != 0 {
			line += ", suspected"
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// grants A: for how long A is bound to whom. The time until a restarted voter may report anything
// is in that.
func (p *player) grants(c *script.Command) string {
	v := p.node(c.Arg()).voter
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []string
	for node, ses := range state.Each(p.newest().Sessions, nil) {
		id, granted := SessionID{string(node), ses.Number}, "granted nothing"
		if v.given.hasGranted(id) {
			granted = "granted"
		}
		out = append(out, fmt.Sprintf("%s: %s, bound %v", id.Node, granted, !v.given.expired(id, time.Now())))
	}
	return strings.Join(out, "\n")
}

// expired A: under which suspicions A reports that nothing binds it.
func (p *player) expired(c *script.Command) string {
	var out []string
	expired, _ := p.node(c.Arg()).voter.report(time.Now())
	for _, who := range expired {
		out = append(out, fmt.Sprintf("%s, suspected by entry %d", who.Node, who.Index))
	}
	return strings.Join(slices.Sorted(slices.Values(out)), "\n")
}

// ask A about=B: whether the lease of B has expired, by the grants of A. session=N is another
// session than the one in the state.
func (p *player) ask(c *script.Command) string {
	n, about := p.node(c.Arg()), c.Option("about", "")
	q := expiredQuery{SessionID{about, c.Uint("session", p.newest().Number(about))}}
	reply, err := n.ServeExpired(p.t.Context(), "", q.encode())
	if err != nil {
		return err.Error()
	}
	a, err := decodeExpiredAnswer(reply)
	if err != nil {
		c.Fatalf("%v", err)
	}
	if a.expired {
		return "expired"
	}
	return "not expired"
}

// deliver A from=B KIND: a datagram reaches A. It prints what A sends to B at once.
func (p *player) deliver(c *script.Command) string {
	n, from := p.node(c.Arg()), c.Option("from", "")
	var d datagram
	switch kind := c.Arg(); kind {
	case "renew":
		d = Renew{Session: c.Uint("session", 0), Sent: 1, Urgent: c.Option("urgent", "no") == "yes"}
	case "grant":
		ago, err := time.ParseDuration(c.Option("sent", "0s"))
		if err != nil {
			c.Fatalf("%v", err)
		}
		d = Grant{Session: c.Uint("session", 0), Sent: uint64(time.Since(n.own.started) + ago), Clock: time.Now().UnixMilli()}
	case "expired":
		about := c.Option("about", "")
		d = Expired{Suspicion{SessionID{about, c.Uint("session", 0)}, c.Uint("suspicion", 0)}}
	case "ended":
		d = Ended{Session: c.Uint("session", 0)}
	default:
		c.Fatalf("unknown kind %s", kind)
	}
	p.mu.Lock()
	clear(n.sent)
	p.mu.Unlock()
	n.OnDatagram(from, encode(d))
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(n.sent[from], "\n")
}

// describe returns a datagram as scripts print it.
func describe(d datagram) string {
	switch d := d.(type) {
	case Renew:
		return fmt.Sprintf("renew session %d", d.Session)
	case Grant:
		return fmt.Sprintf("grant session %d", d.Session)
	case Expired:
		return fmt.Sprintf("expired session %d of %s", d.Number, d.Node)
	case Ended:
		return fmt.Sprintf("ended session %d", d.Session)
	case Leaving:
		return fmt.Sprintf("leaving %v", d.Leaving)
	}
	return "?"
}

// hold A ROLE: A claims a public role, with hold-down=TIME.
func (p *player) hold(c *script.Command) string {
	name, role := c.Arg(), c.Arg()
	d, err := time.ParseDuration(c.Option("hold-down", "0s"))
	if err != nil {
		c.Fatalf("%v", err)
	}
	p.commit(testEntry{command: &state.Command{
		Node: name, Session: p.newest().Number(name), Seq: c.Uint("seq", 1),
		Change: state.ClaimRole{Role: keyspace.RolePrefix + role, Wait: true, MaxState: 1 << 20, Public: &state.PublicRole{HoldDown: d}},
	}})
	return ""
}

// role ROLE: who holds it and who waits.
func (p *player) role(c *script.Command) string {
	var out []string
	for _, claim := range p.newest().Claims(keyspace.RolePrefix + c.Arg()) {
		switch {
		case claim.HoldDown != 0:
			out = append(out, claim.Node+" in hold-down")
		case claim.Index != 0:
			out = append(out, claim.Node+" holds")
		default:
			out = append(out, claim.Node+" waits")
		}
	}
	return strings.Join(out, "; ")
}
