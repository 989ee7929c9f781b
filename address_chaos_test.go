package flotilla_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/deathnotice"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/vip"
)

// addressFleet is a cluster whose nodes have floating addresses on a link in memory.
type addressFleet struct {
	t      *testing.T
	c      *clustertest.Cluster
	link   *vip.Memory
	addrs  []netip.Prefix
	random *rand.Rand
	change func(i, k int, cfg *vip.Config)
	runs   []func() // ends the runs of a node, and waits for them
	guards sync.WaitGroup
	log    *slog.Logger
}

func newAddressFleet(t *testing.T, seed uint64, nodes, addrs int, change func(i, k int, cfg *vip.Config), configure func(i int, c *flotilla.Config)) *addressFleet {
	t.Helper()
	f := &addressFleet{t: t, link: vip.NewMemory(), change: change, random: rand.New(rand.NewPCG(seed, 5)), runs: make([]func(), nodes)}
	said := new(testlog.Buffer)
	f.log = slog.New(slog.NewTextHandler(said, nil))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what happened:\n%s", said.String())
		}
	})
	for k := range addrs {
		f.addrs = append(f.addrs, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + k)}), 24))
	}
	f.c = clustertest.New(t, nodes, func(i int, c *flotilla.Config) {
		c.Logger = f.log
		if configure != nil {
			configure(i, c)
		}
	})
	f.c.Settle()
	t.Cleanup(func() {
		for i := range f.runs {
			f.machine(i).Thaw()
			f.end(i)
		}
		f.guards.Wait()
	})
	return f
}

func (f *addressFleet) machine(i int) *vip.Machine { return f.link.Machine("n" + strconv.Itoa(i)) }

// start starts the programs.
func (f *addressFleet) start() {
	for i := range f.runs {
		f.run(i)
	}
}

// run starts the program's part on node i.
func (f *addressFleet) run(i int) {
	ctx, cancel := context.WithCancel(f.t.Context())
	var runs sync.WaitGroup
	for k, a := range f.addrs {
		cfg := vip.Config{Addr: a, Binder: f.machine(i), Logger: f.log.With("node", i)}
		if f.change != nil {
			f.change(i, k, &cfg)
		}
		node := f.c.Nodes[i]
		runs.Go(func() { vip.Run(ctx, node, cfg) })
	}
	f.runs[i] = func() {
		cancel()
		runs.Wait()
	}
}

func (f *addressFleet) end(i int) {
	if f.runs[i] != nil {
		f.runs[i]()
		f.runs[i] = nil
	}
}

// kill ends a program as SIGKILL does. Its guard, if there is one, acts some milliseconds later.
func (f *addressFleet) kill(i int, guard bool) {
	notices := f.machine(i).Die()
	f.c.Kill(i)
	f.end(i)
	if !guard {
		return
	}
	delay := time.Duration(1+f.random.IntN(8)) * time.Millisecond // random is this goroutine's
	f.guards.Go(func() {
		time.Sleep(delay)
		f.machine(i).Remove()
		dial := f.c.Config((i + 1) % len(f.runs)).PeerDial // that of the dead machine has died with it
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if len(notices) > 0 {
			if err := deathnotice.Send(ctx, notices[0], dial); err != nil {
				f.t.Logf("the death notice of n%d: %v", i, err)
			}
		}
	})
}

func (f *addressFleet) dead() []int {
	live := f.c.Live()
	var dead []int
	for i := range f.runs {
		if !slices.Contains(live, i) {
			dead = append(dead, i)
		}
	}
	return dead
}

func (f *addressFleet) restart(i int) {
	f.machine(i).Thaw()
	f.c.Restart(i)
	f.run(i)
}

// owner returns the number of the machine that alone answers for an address, -1 if it is none or
// more than one.
func (f *addressFleet) owner(k int) int {
	owners := f.link.Owners(f.addrs[k].Addr())
	if len(owners) != 1 {
		return -1
	}
	i, _ := strconv.Atoi(owners[0][1:])
	return i
}

// await waits until ok, for the time given.
func (f *addressFleet) await(what string, patience time.Duration, ok func() bool) time.Duration {
	f.t.Helper()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		took := time.Since(start)
		if ok() {
			return took
		}
		if took > patience {
			f.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// settled waits until every address has an owner.
func (f *addressFleet) settled(patience time.Duration) time.Duration {
	f.t.Helper()
	return f.await("every address has an owner", patience, func() bool {
		for k := range f.addrs {
			if f.owner(k) < 0 {
				return false
			}
		}
		return true
	})
}

// alone fails the test if two machines have answered for an address at the same time.
func (f *addressFleet) alone() {
	f.t.Helper()
	for _, o := range f.link.Overlaps() {
		f.t.Errorf("%v was answered for by %s and %s for %v", o.Addr, o.Hosts[0], o.Hosts[1], o.To.Sub(o.From))
	}
}

// addressSeeds are those of a run: FLOTILLA_TEST_SEED names one, FLOTILLA_TEST_SEEDS how many.
func addressSeeds(t *testing.T, usual int) (first, n uint64) {
	if s := os.Getenv("FLOTILLA_TEST_SEED"); s != "" {
		one, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return one, 1
	}
	n = uint64(usual)
	if s := os.Getenv("FLOTILLA_TEST_SEEDS"); s != "" {
		many, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n = many
	}
	return rand.Uint64N(1 << 32), n
}

// Whatever happens, no two machines answer for an address at the same time, and afterwards one
// does. Clocks run up to one part in a hundred wrong, guards are there or not, and so are
// fences.
func TestAddressesUnderFaults(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	first, n := addressSeeds(t, flotilla.Cases(t, 12, 3))
	for seed := first; seed < first+n; seed++ {
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { addressChaos(t, seed) })
		})
		if !ok {
			t.Logf("again with FLOTILLA_TEST_SEED=%d", seed)
			return
		}
	}
}

func addressChaos(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	f := newAddressFleet(t, seed, 3, 3, func(i, k int, cfg *vip.Config) {
		if seed%3 == 0 { // priorities shifted by one, as with keepalived; else spread by the group
			cfg.Priority = (i + k) % 3
		}
		cfg.PreemptDelay = time.Duration(random.IntN(3)) * 500 * time.Millisecond
	}, func(_ int, c *flotilla.Config) {
		c.Timing = []flotilla.Timing{flotilla.LAN, flotilla.Fast, flotilla.LAN, flotilla.Turbo}[seed%4]
		flotilla.SetClock(c, 0.99+0.02*random.Float64())
	})
	guarded := seed%5 != 0
	for i := range f.runs { // before it is attached to
		if random.IntN(3) == 0 {
			f.machine(i).SetHoldDown(time.Duration(random.IntN(2500)) * time.Millisecond)
		}
	}
	f.start()
	f.c.SetLatency(time.Duration(random.IntN(2000)) * time.Microsecond)
	f.settled(time.Minute)
	pause := func(most time.Duration) { time.Sleep(time.Duration(random.Int64N(int64(most)))) }
	for range 10 {
		i := random.IntN(3)
		if random.IntN(3) == 0 && f.owner(0) >= 0 {
			i = f.owner(0)
		}
		other := (i + 1 + random.IntN(2)) % 3
		what := random.IntN(10)
		f.log.Info("chaos", "what", what, "node", i, "other", other)
		if slices.Contains(f.dead(), i) {
			f.restart(i)
			pause(2 * time.Second)
			continue
		}
		switch what {
		case 0, 1:
			f.kill(i, guarded)
			pause(3 * time.Second)
		case 2:
			f.kill(i, false)
			pause(time.Second)
			f.restart(i) // before the lease is over, often
		case 3:
			f.c.Isolate(i)
			pause(4 * time.Second)
			f.c.Heal()
		case 4: // every process of a machine stands still
			f.machine(i).Freeze()
			f.c.Isolate(i)
			pause(5 * time.Second)
			f.c.Heal()
			f.machine(i).Thaw()
		case 5:
			f.c.Block(i, other)
			pause(3 * time.Second)
			f.c.Heal()
		case 6:
			f.end(i) // by plan
			pause(time.Second)
			f.run(i)
		case 7:
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			if err := f.c.Nodes[i].Move(ctx, "vip/"+f.addrs[random.IntN(3)].Addr().String(), ""); err != nil {
				f.log.Info("move", "err", err)
			}
			cancel()
		case 8:
			f.machine(i).SetDown(true)
			pause(2 * time.Second)
			f.machine(i).SetDown(false)
		case 9:
			if len(f.dead()) > 0 {
				continue
			}
			f.c.Stop(i)
			f.end(i)
			pause(time.Second)
		}
		pause(2 * time.Second)
		f.alone()
		if t.Failed() {
			return
		}
	}
	f.c.Heal()
	for i := range f.runs {
		f.machine(i).Thaw()
	}
	for _, i := range f.dead() {
		f.restart(i)
	}
	f.c.Settle()
	f.settled(time.Minute)
	f.alone()
}
