package alerts_test

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest/testca"
)

var long = flag.Bool("long", false, "prove all alerts, which takes minutes")

const (
	// patience is how long after its `for` an alert may take.
	patience = 30 * time.Second
	// hold is how long a fault lasts at least. All but three rules wait for less than that here, so
	// an alert is seen that a fault fires besides its own.
	hold = 35 * time.Second
)

// proof is a fault and the alert that it fires.
type proof struct {
	alert    string
	replaced map[string]string // in the rules: what takes too long, or cannot be made, in a test
	ripens   time.Duration     // from the fault until the rule's condition is true; 0: at once
	world    func(t *testing.T) world
	fault    func(s *site)
	mend     func(s *site)
	clears   time.Duration // how long after mend it may fire; 0: patience
}

// proofs returns a fault for each alert, but for two that need processes of their own.
func proofs() []proof {
	three := func(*testing.T) world { return world{} }
	return []proof{
		// Those that take longest come first.
		{
			alert:    "FlotillaNoBackup",
			replaced: map[string]string{"verified_timestamp_seconds\n        for: 1h": "verified_timestamp_seconds\n        for: 10m"},
			world:    func(*testing.T) world { return world{backups: true, full: true} },
			mend:     func(s *site) { s.store.fails.Store(false) },
			clears:   3 * time.Minute, // until it is tried again
		},
		{
			// A renewal is due now. The certificate still has an hour.
			alert: "FlotillaOrdersRefused", world: short,
			replaced: map[string]string{"86400\n        for: 1h": "86400\n        for: 10m"},
			fault: func(s *site) {
				s.due(0)
				s.answer(func(r testca.Request) *testca.Refusal {
					if r.Op == testca.NewOrder {
						return testca.Problem(http.StatusForbidden, "rejectedIdentifier", "no", "")
					}
					return nil
				})
			},
			mend:   (*site).relent,
			clears: 3 * time.Minute, // until the order is tried again
		},
		{
			alert: "FlotillaNodeRestarts", world: three,
			replaced: map[string]string{"start_timestamp_seconds[1h]": "start_timestamp_seconds[30m]"},
			fault: func(s *site) {
				seen := fmt.Sprintf("changes(flotilla_start_timestamp_seconds{instance=%q}[1h])", s.targets[2])
				for i := range 4 {
					s.c.Kill(2)
					s.again(2)
					s.until("Prometheus has seen it", time.Minute, func() bool {
						_, n := s.prom.samples(seen)
						return n == float64(i+1)
					})
				}
			},
			clears: 30*time.Minute/speed + patience, // it looks back for that long
		},
		{
			alert: "FlotillaLeasesLost", world: three,
			replaced: map[string]string{"lease_lost_total[1h]": "lease_lost_total[30m]"},
			fault: func(s *site) {
				_, rest := s.leader()
				for range 3 {
					s.c.Pause(rest[0])
					s.until("its session ends", time.Minute, func() bool { return !s.present(rest[1], rest[0]) })
					s.c.Resume(rest[0])
					s.until("it has another one", time.Minute, func() bool { return s.present(rest[1], rest[0]) })
					s.c.Settle()
				}
			},
			clears: 30*time.Minute/speed + patience, // it looks back for that long
		},
		{
			alert: "FlotillaSlowDisk", world: three,
			fault: func(s *site) {
				leader, rest := s.leader()
				s.c.Disk(rest[0]).Slow(700 * time.Millisecond)
				s.load(leader)
			},
			mend: func(s *site) {
				for i := range s.c.Nodes {
					s.c.Disk(i).Slow(0)
				}
			},
			clears: 30*time.Minute/speed + patience, // it looks back for half an hour
		},
		{
			alert: "FlotillaBackupTooOld",
			// The shortest interval is a minute.
			replaced: map[string]string{"> on (job) 2 * max": "> on (job) 1.2 * max"},
			world:    func(*testing.T) world { return world{backups: true} },
			fault:    func(s *site) { s.store.fails.Store(true) },
			mend:     func(s *site) { s.store.fails.Store(false) },
			ripens:   72 * time.Second,
			clears:   3 * time.Minute, // until it is tried again
		},
		{
			alert: "FlotillaDown", world: three,
			fault: func(s *site) { s.c.KillAll() },
			mend:  func(s *site) { s.again(0, 1, 2) },
		},
		{
			alert: "FlotillaNoLeader", world: three,
			fault: func(s *site) { s.c.Kill(1); s.c.Kill(2) },
			mend:  func(s *site) { s.again(1, 2) },
		},
		{
			alert: "FlotillaMajorityAtRisk", world: three,
			fault: func(s *site) { s.c.Kill(2) },
			mend:  func(s *site) { s.again(2) },
		},
		{
			alert: "FlotillaMemberAbsent",
			world: func(*testing.T) world { return world{nodes: 5} },
			fault: func(s *site) { s.c.Kill(4) },
			mend:  func(s *site) { s.again(4) },
		},
		{
			// A node with another secret finds no cluster.
			// It has another secret, and so finds no cluster.
			alert: "FlotillaNodeNotReady", world: three,
			fault: func(s *site) {
				i := s.c.Add(func(_ int, cfg *flotilla.Config) {
					cfg.Secrets, cfg.Drain.Grace = []flotilla.Secret{flotilla.NewSecret()}, -1
				})
				s.target(i)
			},
			mend: func(s *site) {
				s.c.Kill(3)
				s.c.Wipe(3)
				s.c.Config(3).Secrets = s.c.Config(0).Secrets
				s.again(3)
			},
		},
		{
			alert: "FlotillaNotScraped", world: three,
			fault: func(s *site) { s.prom.watch(append(s.targets, free(s.T, 1)[0])) },
			mend:  func(s *site) { s.prom.watch(s.targets) },
		},
		{
			alert: "FlotillaNodeFailed", world: three,
			fault: func(s *site) {
				s.c.Disk(2).Fail(true)
				s.write(0, "a", 1) // so that the disk is used
			},
			mend: func(s *site) { s.c.Disk(2).Fail(false) },
		},
		{
			alert: "FlotillaPeerUnreachable", world: three,
			fault: func(s *site) {
				_, rest := s.leader()
				s.c.Block(rest[0], rest[1])
				s.c.Block(rest[1], rest[0])
			},
			mend: func(s *site) { s.c.Heal() },
		},
		{
			alert: "FlotillaConfigurationDiffers", world: three,
			fault: func(s *site) {
				s.c.Config(2).MaxState = 32 << 20
				s.c.Stop(2)
				s.c.Restart(2)
			},
			mend: func(s *site) {
				s.c.Config(2).MaxState = 0
				s.c.Stop(2)
				s.again(2)
			},
		},
		{
			alert: "FlotillaClockWrong", world: three,
			fault: func(s *site) { s.c.Clock(1).Jump(5 * time.Minute) },
			mend:  func(s *site) { s.c.Clock(1).Jump(-5 * time.Minute) },
		},
		{
			// A log of 12 MiB, and a limit that is below that: a real one stays below 32 MiB.
			alert: "FlotillaLogTooLong", world: three,
			replaced: map[string]string{"67108864 + 2 *": "6291456 + 2 *"},
			fault: func(s *site) {
				for range 12 {
					s.write(0, "a", 1<<20)
				}
			},
			mend: func(s *site) {
				for range 6 { // until a snapshot is taken, which shortens the log
					s.write(0, "a", 1<<20)
				}
			},
		},
		{
			alert: "FlotillaStateNearlyFull",
			world: func(*testing.T) world {
				return world{configure: func(_ int, cfg *flotilla.Config) { cfg.MaxState = 2 << 20 }}
			},
			fault: func(s *site) { s.write(0, "a", 900<<10); s.write(0, "b", 900<<10) },
			mend:  func(s *site) { s.remove(0, "b") },
		},
		{
			// Renewal is an hour overdue, and the authority holds every order up.
			alert: "FlotillaCertificateNotRenewed",
			world: short, fault: overdue(time.Hour), mend: (*site).relent,
		},
		{
			alert: "FlotillaCertificateExpires",
			world: short, fault: overdue(5 * time.Hour), mend: (*site).relent,
		},
		{
			alert:    "FlotillaRenewalCheckStalled",
			world:    short,
			replaced: map[string]string{"seconds > 14400": "seconds > 6"}, // it looks each second
			fault: func(s *site) {
				s.gate.close()
				s.answer(func(r testca.Request) *testca.Refusal {
					if r.Op == testca.RenewalInfo {
						s.gate.pass()
					}
					return nil
				})
			},
			mend: (*site).relent,
		},
		{
			alert: "FlotillaSelfSigned",
			world: func(*testing.T) world {
				return world{authority: true, silent: true}
			},
			mend:   func(s *site) { s.ca.SetUnreachable(false) },
			clears: 3 * time.Minute, // until the order is tried again
		},
		{
			alert: "FlotillaAddressWithoutOwner", world: three,
			fault: func(s *site) { s.down(true) },
			mend:  func(s *site) { s.down(false) },
		},
	}
}

// short is a world with an authority.
func short(*testing.T) world { return world{authority: true} }

// overdue returns a fault: renewal has been due for some time, and the authority holds orders up.
func overdue(by time.Duration) func(*site) {
	return func(s *site) {
		s.gate.close()
		s.due(by)
		s.answer(func(r testca.Request) *testca.Refusal {
			if r.Op == testca.NewOrder {
				s.gate.pass()
			}
			return nil
		})
	}
}

// TestProofs runs a Prometheus beside real nodes. Each fault fires its alert, and no other one. The
// alert ends when the fault is mended.
func TestProofs(t *testing.T) {
	if !*long {
		t.Skip("it takes minutes: it runs with -long")
	}
	t.Parallel()
	command(t, "prometheus")
	// These two have tests of their own.
	proven := map[string]bool{"FlotillaAddressConflict": true, "FlotillaVersionsDiffer": true}
	var mu sync.Mutex
	var table []string
	t.Run("all", func(t *testing.T) {
		for _, p := range proofs() {
			proven[p.alert] = true
			t.Run(p.alert, func(t *testing.T) {
				t.Parallel()
				line := p.run(t)
				mu.Lock()
				defer mu.Unlock()
				table = append(table, line)
			})
		}
	})
	slices.Sort(table)
	t.Logf("seconds until the alert fires after its fault, of them its wait, and until it ends:\n%s", strings.Join(table, "\n"))
	for name := range rulesOf(t, text(t)) {
		if !proven[name] {
			t.Errorf("no fault fires %s", name)
		}
	}
}

// run returns what was measured.
func (p proof) run(t *testing.T) string {
	s := build(t, p.world(t))
	s.watch(p.replaced)
	return p.prove(s)
}

// prove makes the fault, waits for its alert, mends the fault, and waits for the end of the alert.
func (p proof) prove(s *site) string {
	s.Helper()
	wait := s.prom.rules()[p.alert].wait()
	began := time.Now()
	if p.fault != nil {
		p.fault(s)
	}
	made := time.Since(began)
	fires := func() bool { return len(s.only(p.alert)) > 0 }
	fired := s.until(p.alert+" fires", p.ripens+wait+patience, fires)
	s.calm(hold-fired, p.alert)
	mended := time.Now()
	if p.mend != nil {
		p.mend(s)
	}
	s.until(p.alert+" ends", max(p.clears, patience), func() bool { return len(s.only(p.alert)) == 0 })
	ended := time.Since(mended)
	s.calm(3 * time.Second)
	s.prom.rules()
	s.past(p.alert)
	return fmt.Sprintf("%-32s made in %4.1f  fires after %5.1f  waits %5.1f  ends after %5.1f",
		p.alert, made.Seconds(), fired.Seconds(), wait.Seconds(), ended.Seconds())
}

// Planned work fires no alert.
func TestPlannedWork(t *testing.T) {
	if !*long {
		t.Skip("it takes a minute: it runs with -long")
	}
	t.Parallel()
	for name, work := range map[string]func(s *site){
		"restarts": func(s *site) {
			for i := range s.c.Nodes {
				s.c.Stop(i)
				s.again(i)
			}
		},
		"changes of the leader": func(s *site) {
			for range 3 {
				leader, _ := s.leader()
				s.c.Stop(leader)
				s.again(leader)
			}
		},
		"joining and leaving": func(s *site) {
			i := s.c.Add(func(_ int, cfg *flotilla.Config) {
				cfg.Drain.Grace, cfg.TLS.Configure = -1, s.ca.Configure
				cfg.Backups = flotilla.Backups{Store: &s.store, Every: time.Minute}
			})
			s.target(i)
			s.c.Settle()
			s.until("it is watched", time.Minute, func() bool {
				n, _ := s.prom.samples("flotilla_ready == 1")
				return n == 4
			})
			s.c.Leave(i)
			s.prom.watch(s.targets[:i])
		},
		"moves": func(s *site) {
			for i := range 6 {
				s.move(0, s.c.Config(i%3).Name)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := build(t, world{authority: true, backups: true})
			s.watch(nil)
			work(s)
			s.calm(hold)
			s.prom.rules()
			s.past()
		})
	}
}
