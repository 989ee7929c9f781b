package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/bench/internal/proc"
	"github.com/flotilla-ha/flotilla/internal/netlab"
)

var (
	stolenFlag  = flag.Duration("stolen", time.Minute, "how long BenchmarkStolen takes processor time from each system, in each way")
	thievesFlag = flag.String("thieves", "", "parts of names of thieves of BenchmarkStolen, with commas; empty: all")
)

// thief takes half of the processor time of the nodes, or more.
type thief struct {
	name string
	// mean is the mean length of the periods in which the nodes stand still, and of those in which
	// they run. Each lasts from half to three halves of it, so that they do not follow what the nodes
	// do. Zero: the thief always wants to run, and has no priority.
	mean  time.Duration
	apart bool // it stops each node at other times; else it stops the processor of all
}

// thiefPriority is the priority of a thief that has one, as of sched(7).
const thiefPriority = 50

// neighbours is the number of processes of a thief without a priority.
const neighbours = 4

func thieves() []thief {
	return []thief{
		{name: "neighbours"},
		{name: "thread 2 ms", mean: 2 * time.Millisecond},
		{name: "thread 10 ms", mean: 10 * time.Millisecond},
		{name: "thread 20 ms", mean: 20 * time.Millisecond},
		{name: "host 10 ms", mean: 10 * time.Millisecond, apart: true},
		{name: "host 20 ms", mean: 20 * time.Millisecond, apart: true},
		{name: "host 40 ms", mean: 40 * time.Millisecond, apart: true},
	}
}

// thiefVariable is the environment variable that tells a thief's process the mean period, the
// processor, and the processes that it stops. Without processes it keeps the processor busy.
const thiefVariable = "BENCH_THIEF"

// start starts the processes of the thief. They end with their standard input.
func (t thief) start(lab *netlab.Lab, cpu int) (stop func() error, err error) {
	var all []func() error
	stop = func() (err error) {
		for _, s := range all {
			err = errors.Join(err, s())
		}
		return err
	}
	run := func(pids []string) error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), proc.RoleVariable+"=thief",
			thiefVariable+"="+fmt.Sprintf("%d %d %s", int64(t.mean), cpu, strings.Join(pids, " ")))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		all = append(all, func() error { return errors.Join(in.Close(), cmd.Wait()) })
		return nil
	}
	if !t.apart {
		n := 1
		if t.mean == 0 {
			n = neighbours
		}
		for range n {
			if err := run(nil); err != nil {
				return stop, err
			}
		}
		return stop, nil
	}
	for _, h := range lab.Nodes {
		running, err := h.Processes()
		if err != nil {
			return stop, err
		}
		var pids []string
		for _, r := range running {
			pids = append(pids, fmt.Sprint(r.PID))
		}
		if err := run(pids); err != nil {
			return stop, err
		}
	}
	return stop, nil
}

// runThief is the process of a thief.
func runThief(context.Context) error {
	words := strings.Fields(os.Getenv(thiefVariable))
	var numbers []int
	for _, w := range words {
		n, err := strconv.Atoi(w)
		if err != nil {
			return err
		}
		numbers = append(numbers, n)
	}
	mean, cpu, pids := numbers[0], numbers[1], numbers[2:]
	runtime.LockOSThread()
	if len(pids) == 0 {
		if err := pinProcess(os.Getpid(), cpu); err != nil {
			return err
		}
	}
	if mean == 0 {
		go func() { // the kernel has other processors for it
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		for turns := uint64(0); ; turns++ { // nothing else than to keep the processor
		}
	}
	// A thread with this policy runs before all that have not asked for another one.
	priority := int32(thiefPriority)
	if _, _, e := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO, uintptr(unsafe.Pointer(&priority))); e != 0 {
		return fmt.Errorf("a thief must be privileged: %w", e)
	}
	signal := func(s syscall.Signal) {
		for _, pid := range pids {
			unix.Kill(pid, s)
		}
	}
	defer signal(unix.SIGCONT)
	for {
		for _, takes := range []bool{true, false} {
			length := time.Duration(mean/2 + rand.IntN(mean))
			end := time.Now().Add(length)
			switch {
			case len(pids) == 0 && takes:
				for time.Now().Before(end) {
				}
			case takes:
				signal(unix.SIGSTOP)
				napUntil(end)
			default:
				signal(unix.SIGCONT)
				napUntil(end)
			}
		}
		ended := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
		if n, err := unix.Poll(ended, 0); err == nil && n > 0 {
			return nil
		}
	}
}

// napUntil sleeps in this thread, which is woken sooner than a goroutine.
func napUntil(end time.Time) {
	nap := unix.NsecToTimespec(max(0, int64(time.Until(end))))
	unix.Nanosleep(&nap, nil)
}

// pinProcess ties the threads of a process to one processor, and those that they start.
func pinProcess(pid, cpu int) error {
	set := new(unix.CPUSet)
	set.Set(cpu)
	return setAffinity(pid, set)
}

func setAffinity(pid int, set *unix.CPUSet) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		thread, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(thread, set); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

// stolenReport is what a system did while its processor time was stolen.
type stolenReport struct {
	took       time.Duration
	lost       int // leases, as the nodes say
	suspicions int
	moves      int           // how often an address has come to a kernel
	away       time.Duration // the longest time without an answer
	stall      time.Duration // the longest pause of the probes themselves
	wire       time.Duration // the longest time with two owners
	inPauses   int           // leases that were lost in pauses of the nodes' processor
	paused     int           // pauses of that processor that no lease of Turbo survives
	longest    time.Duration // of the pauses of that processor
}

// watchStolen watches all addresses for a while, and adds up what happens.
func (r *stolenReport) watch(ctx context.Context, lab *netlab.Lab, length time.Duration, addrs ...netip.Addr) (err error) {
	w, err := lab.Watch(20*time.Millisecond, addrs...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	var probes []*netlab.Probe
	for _, a := range addrs {
		p, err := lab.Clients[0].ProbeUDP(netip.AddrPortFrom(a, netlab.Port), addressInterval)
		if err != nil {
			return err
		}
		defer p.Close()
		probes = append(probes, p)
	}
	from := time.Now()
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	to := time.Now()
	r.took += to.Sub(from)
	for _, p := range probes {
		s := p.Report(from, to)
		r.away, r.stall = max(r.away, s.Outage), max(r.stall, s.Stall)
	}
	for _, o := range w.Report(from, to) {
		r.wire = max(r.wire, o.TwoOnWire.Longest)
	}
	for _, a := range addrs {
		for _, h := range w.History(a) {
			if h.From.After(from) {
				r.moves++
			}
		}
	}
	return nil
}

// BenchmarkStolen takes half of the processor time of all nodes, and counts the leases that are
// lost by that and the moves of addresses. The nodes are those of BenchmarkAddresses, tied to one
// processor. "neighbours" are busy processes on that processor with the usual priority. A "thread"
// of a real-time priority stops it for all nodes at once. A "host" stops each node with all its
// threads, at other times than the other nodes, as a hypervisor does. A thread of a priority right
// below that of the "thread" tells for how long the machine lets nobody else run: what no program
// can survive is not the program's fault.
func BenchmarkStolen(b *testing.B) {
	if err := netlab.Available(); err != nil {
		b.Skip(err)
	}
	fmt.Printf("\n| system | stolen by | for | leases lost/in pauses of the processor | suspicions | addresses moved | away at most/probes' own pauses, ms | two owners on the wire, ms | pauses of the processor over %.0f ms/longest, ms |\n"+
		"|---|---|---|---|---|---|---|---|---|\n", ms(survivable()))
	for _, s := range addressSystems() {
		if !named(s.name, *systemsFlag) {
			continue
		}
		for _, t := range thieves() {
			if !wanted(t.name, *thievesFlag) {
				continue
			}
			b.Run(s.name+"/"+t.name, func(b *testing.B) {
				if err := s.available(); err != nil {
					b.Skip(err)
				}
				r, err := stealFrom(b, s, t)
				if err != nil {
					b.Fatal(err)
				}
				fmt.Printf("| %s | %s | %v | %d/%d | %d | %d | %.0f/%.0f | %.0f | %d/%.0f |\n", s.name, t.name, r.took.Round(time.Second),
					r.lost, r.inPauses, r.suspicions, r.moves, ms(r.away), ms(r.stall), ms(r.wire), r.paused, ms(r.longest))
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// startPinned starts a system on all nodes, with one processor. What this process starts inherits
// the processors of the thread that starts it.
func startPinned(lab *netlab.Lab, system addressSystem, cpu int) (err error) {
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	if err := pinProcess(os.Getpid(), cpu); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, setAffinity(os.Getpid(), &before)) }()
	for i := range lab.Nodes {
		if err := system.start(i); err != nil {
			return err
		}
	}
	return nil
}

func stealFrom(b *testing.B, s addressKind, t thief) (r stolenReport, err error) {
	lab, err := netlab.New(3, 1)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	system := s.open(lab, b.TempDir())
	cpu := runtime.NumCPU() - 1
	if err := startPinned(lab, system, cpu); err != nil {
		return r, err
	}
	time.Sleep(5 * time.Second) // they find each other, and all addresses go home
	from := time.Now()
	const silent, expired, ended = "a node is silent", "the lease has expired", "the cluster has ended the node's session"
	watching, err := startObserver(cpu)
	if err != nil {
		return r, err
	}
	stop, err := t.start(lab, cpu)
	for err == nil && r.took < *stolenFlag {
		err = r.watch(b.Context(), lab, min(time.Minute, *stolenFlag-r.took), slices.Concat(addressGroups(s.only4)...)...)
	}
	err = errors.Join(err, stop())
	pauses, observed := watching.stop()
	err = errors.Join(err, observed)
	r.paused, r.longest = deadly(pauses)
	for i := range lab.Nodes {
		for line := range strings.Lines(system.log(i)) {
			at, ok := logTime(line)
			switch {
			case !ok || at.Before(from):
			case strings.Contains(line, silent):
				r.suspicions++
			case strings.Contains(line, expired), strings.Contains(line, ended):
				r.lost++
				if explained(at, pauses) {
					r.inPauses++
				} else {
					fmt.Print("# not in a pause: ", line)
				}
			}
		}
	}
	return r, err
}

// logTime is the time of a line of a node's log.
func logTime(line string) (t time.Time, ok bool) {
	text, found := strings.CutPrefix(line, slog.TimeKey+"=")
	if text, _, ok = strings.Cut(text, " "); !found || !ok {
		return t, false
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	return t, err == nil
}
