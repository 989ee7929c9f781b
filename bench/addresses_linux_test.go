package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/steps"
)

var (
	systemsFlag = flag.String("systems", "", "systems of BenchmarkAddresses, separated by commas; empty: all")
	stepsFlag   = flag.Bool("steps", false, "BenchmarkAddresses prints when each step of a fail-over was done")
	eventsFlag  = flag.String("events", "", "parts of names of events of BenchmarkAddresses, with commas; empty: all")
)

// addressSystem keeps the floating addresses of three nodes. Without faults group k is at node k.
// On each node a program answers at all addresses of the node.
type addressSystem interface {
	// start starts what does not run on a node: the program, and what keeps the addresses.
	start(node int) error
	// killProgram kills only the program, by SIGKILL. What would report the death to the rest does
	// so.
	killProgram(node int) error
	// term ends a node as its operator would, and returns when all its processes have ended.
	term(node int) error
	// stops returns true for the processes that SIGSTOP to the program and to what keeps the
	// addresses would hit.
	stops(netlab.Running) bool
	// leads returns the node on which the others depend; -1 if there is none.
	leads() int
	// log returns the output of a node.
	log(node int) string
}

// addressGroups are the addresses of BenchmarkAddresses: an IPv4 and, unless only4, an IPv6 address
// for each node.
func addressGroups(only4 bool) (groups [][]netip.Addr) {
	for k := range 3 {
		group := []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", 51+k))}
		if !only4 {
			group = append(group, netip.MustParseAddr(fmt.Sprintf("fd77::%d", 51+k)))
		}
		groups = append(groups, group)
	}
	return groups
}

// addressEvent is a fault of a node that owns addresses.
type addressEvent struct {
	name   string
	inject func(t *addressTrial) error
	lasts  time.Duration // at least; 0: until the addresses are elsewhere
	undo   func(t *addressTrial) error
}

// addressEvents returns the events in the order of the table.
func addressEvents() []addressEvent {
	restart := func(t *addressTrial) error { return t.system.start(t.victim) }
	hosts := func(t *addressTrial) *netlab.Host { return t.lab.Nodes[t.victim] }
	mend := func(t *addressTrial) error { return hosts(t).Mend() }
	heal := func(t *addressTrial) error { return t.lab.Heal() }
	return []addressEvent{
		{"program killed", func(t *addressTrial) error { return t.system.killProgram(t.victim) }, 0, restart},
		{"all killed", func(t *addressTrial) error {
			_, err := hosts(t).Kill(syscall.SIGKILL, nil)
			return err
		}, 0, restart},
		// A dead machine sends nothing: no connection is reset.
		{"machine dies", func(t *addressTrial) error {
			if err := hosts(t).Cut(); err != nil {
				return err
			}
			_, err := hosts(t).Kill(syscall.SIGKILL, nil)
			return err
		}, 0, func(t *addressTrial) error { return errors.Join(mend(t), restart(t)) }},
		{"SIGTERM", func(t *addressTrial) error { return t.system.term(t.victim) }, 0, restart},
		{"link down", func(t *addressTrial) error { return hosts(t).LinkDown() }, 0,
			func(t *addressTrial) error { return hosts(t).LinkUp() }},
		{"cut at the bridge", func(t *addressTrial) error { return hosts(t).Cut() }, 0, mend},
		{"partition 1 + 2", func(t *addressTrial) error {
			return t.lab.Partition([]*netlab.Host{hosts(t), t.lab.Clients[1]})
		}, 5 * time.Second, heal},
		{"cannot send", func(t *addressTrial) error { return hosts(t).CutSending() }, 5 * time.Second, heal},
		{"cannot receive", func(t *addressTrial) error { return hosts(t).CutReceiving() }, 5 * time.Second, heal},
		{"stopped 5 s", func(t *addressTrial) error {
			_, err := hosts(t).Kill(syscall.SIGSTOP, t.system.stops)
			return err
		}, 5 * time.Second, func(t *addressTrial) error {
			_, err := hosts(t).Kill(syscall.SIGCONT, t.system.stops)
			return err
		}},
		{"frozen 5 s", func(t *addressTrial) error { return hosts(t).Freeze() }, 5 * time.Second,
			func(t *addressTrial) error { return hosts(t).Thaw() }},
	}
}

// addressTrial is one event on one node, with its measurements.
type addressTrial struct {
	lab    *netlab.Lab
	system addressSystem
	groups [][]netip.Addr
	victim int
	leads  bool // the victim led before the event

	// Of the addresses of the victim, as client 0 saw them:
	away   time.Duration // without an answer, after the event
	back   time.Duration // without an answer, after its end, until all are at home again
	failed int           // connections that were refused, reset or not answered in three seconds
	// Of all addresses:
	kernels, wire time.Duration // longest with two owners
	stall         time.Duration // the longest pause of the probes themselves

	steps steps.Trial // of the nodes other than the victim
}

const (
	addressInterval = 5 * time.Millisecond   // between questions of the client
	addressCalm     = 500 * time.Millisecond // before an event
	addressAfter    = time.Second            // to see late effects
	addressLimit    = 8 * time.Second        // for another owner to answer
)

// run injects the event, waits until another node answers at the addresses of the victim, ends the
// event, and waits until all addresses are at home.
func (t *addressTrial) run(ctx context.Context, event addressEvent) (err error) {
	w, err := t.lab.Watch(0, slices.Concat(t.groups...)...)
	if err != nil {
		return err
	}
	closers := []func() error{w.Close}
	defer func() {
		for _, c := range closers {
			if e := c(); err == nil {
				err = e
			}
		}
	}()
	var udp, tcp []*netlab.Probe
	for _, addr := range t.groups[t.victim] {
		to := netip.AddrPortFrom(addr, netlab.Port)
		u, err := t.lab.Clients[0].ProbeUDP(to, addressInterval)
		if err != nil {
			return err
		}
		closers = append(closers, u.Close)
		c, err := t.lab.Clients[0].ProbeTCP(to, 10*time.Millisecond)
		if err != nil {
			return err
		}
		closers = append(closers, c.Close)
		udp, tcp = append(udp, u), append(tcp, c)
	}
	if err := t.awaitHome(ctx, w, udp); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	t.leads = t.system.leads() == t.victim
	// The effect depends on the moment within an advertisement or a renewal. So every trial waits
	// for another time.
	time.Sleep(addressCalm + rand.N(time.Second))

	began := time.Now()
	if err := event.inject(t); err != nil {
		return err
	}
	for since := time.Now(); time.Since(since) < addressLimit && !t.elsewhere(udp, since); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(max(addressAfter, time.Until(began.Add(event.lasts))))
	if *stepsFlag {
		var logs []string
		for i := range t.lab.Nodes {
			if i != t.victim {
				logs = append(logs, t.system.log(i))
			}
		}
		t.steps = steps.Read(began, logs...)
	}
	undone := time.Now()
	if err := event.undo(t); err != nil {
		return err
	}
	if err := t.awaitHome(ctx, w, udp); err != nil {
		return fmt.Errorf("after: %w", err)
	}
	time.Sleep(addressAfter)
	ended := time.Now()
	for _, p := range udp {
		a, b := p.Report(began, undone), p.Report(undone, ended)
		t.away = max(t.away, a.Outage)
		// An outage that lasted until the end of the event does not count twice.
		t.back = max(t.back, b.Outage-max(0, undone.Sub(b.OutageFrom)-addressInterval))
		t.stall = max(t.stall, a.Stall, b.Stall)
	}
	for _, p := range tcp {
		t.failed += p.Report(began, ended).Failed
	}
	for _, o := range w.Report(began, ended) {
		t.kernels, t.wire = max(t.kernels, o.TwoInKernels.Longest), max(t.wire, o.TwoOnWire.Longest)
	}
	return nil
}

// elsewhere returns true if another node than the victim has answered all probes since a time.
func (t *addressTrial) elsewhere(probes []*netlab.Probe, since time.Time) bool {
	return !slices.ContainsFunc(probes, func(p *netlab.Probe) bool {
		last := p.Latest()
		return !last.Answered.After(since) || last.By == t.lab.Nodes[t.victim].Name
	})
}

// awaitHome waits until every address is at home, and the victim answers at its own.
func (t *addressTrial) awaitHome(ctx context.Context, w *netlab.Watcher, probes []*netlab.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := w.Await(ctx, func(owners []*netlab.Host) bool {
		for i, o := range owners {
			if o != t.lab.Nodes[i/len(t.groups[0])] {
				return false
			}
		}
		return true
	})
	for since := time.Now(); err == nil; time.Sleep(10 * time.Millisecond) {
		if !slices.ContainsFunc(probes, func(p *netlab.Probe) bool {
			last := p.Latest()
			return !last.Answered.After(since) || last.By != t.lab.Nodes[t.victim].Name
		}) {
			return nil
		}
		err = context.Cause(ctx)
	}
	return err
}

// BenchmarkAddresses compares systems that keep floating addresses. Three nodes and two clients are
// network namespaces of this machine. Each node is the home of an IPv4 and an IPv6 address. The
// same events happen to each node in turn under each system, and the same instruments watch. Where
// one node leads, there are as many trials with the leader elsewhere as on the victim. The
// benchmark needs root, and says what else is missing.
func BenchmarkAddresses(b *testing.B) {
	if err := netlab.Available(); err != nil {
		b.Skip(err)
	}
	fmt.Print("\nmilliseconds, median/maximum\n" +
		"| system | event | trials | away | after its end | two owners in kernels | on the wire " +
		"| failed connections | probes' own pauses |\n" +
		"|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range addressSystems() {
		if !named(s.name, *systemsFlag) {
			continue
		}
		b.Run(s.name, func(b *testing.B) {
			if err := s.available(); err != nil {
				b.Skip(err)
			}
			lab, err := netlab.New(3, 2)
			if err != nil {
				b.Fatal(err)
			}
			defer lab.Close()
			system := s.open(lab, b.TempDir())
			for i := range lab.Nodes {
				if err := system.start(i); err != nil {
					b.Fatal(err)
				}
			}
			for _, event := range addressEvents() {
				if !wanted(event.name, *eventsFlag) {
					continue
				}
				trials := make(map[string][]*addressTrial)
				elsewhere, leader := event.name, event.name+", leader too"
				enough := func(name string) bool { return len(trials[name]) >= tries(20) }
				for i := 0; !enough(elsewhere) || system.leads() >= 0 && !enough(leader); i++ {
					t := &addressTrial{lab: lab, system: system, groups: addressGroups(s.only4), victim: i % 3}
					if enough(elsewhere) {
						t.victim = max(0, system.leads())
					} else if t.victim == system.leads() && enough(leader) {
						continue
					}
					if err := t.run(b.Context(), event); err != nil {
						b.Fatalf("%s, trial %d: %v\n%s", event.name, i, err, system.log(t.victim))
					}
					name := elsewhere
					if t.leads {
						name = leader
					}
					trials[name] = append(trials[name], t)
				}
				for _, name := range []string{elsewhere, leader} {
					if len(trials[name]) > 0 {
						fmt.Print(addressRow(s.name, name, trials[name]))
						if *stepsFlag {
							var seen []steps.Trial
							for _, t := range trials[name] {
								seen = append(seen, t.steps)
							}
							fmt.Print(steps.Table(s.name+", "+name, seen), "\n")
						}
					}
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// named reports whether a flag names a system, or none.
func named(system, flag string) bool {
	return flag == "" || slices.Contains(strings.Split(flag, ","), system)
}

// wanted reports whether a flag has a part of a name, or none.
func wanted(name, flag string) bool {
	contained := func(part string) bool { return strings.Contains(name, part) }
	return flag == "" || slices.ContainsFunc(strings.Split(flag, ","), contained)
}

// addressRow returns a line of the table.
func addressRow(system, event string, trials []*addressTrial) string {
	figure := func(of func(*addressTrial) time.Duration) string {
		var all []time.Duration
		for _, t := range trials {
			all = append(all, of(t))
		}
		return fmt.Sprintf("%.0f/%.0f", ms(median(all)), ms(all[len(all)-1]))
	}
	failed := 0
	for _, t := range trials {
		failed += t.failed
	}
	return fmt.Sprintf("| %s | %s | %d | %s | %s | %s | %s | %d | %s |\n", system, event, len(trials),
		figure(func(t *addressTrial) time.Duration { return t.away }),
		figure(func(t *addressTrial) time.Duration { return t.back }),
		figure(func(t *addressTrial) time.Duration { return t.kernels }),
		figure(func(t *addressTrial) time.Duration { return t.wire }),
		failed,
		figure(func(t *addressTrial) time.Duration { return t.stall }))
}
