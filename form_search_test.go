package flotilla_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
)

var formations = newScheduled("formations", "formation", 4, 20)

// A cluster forms by itself after any interruption: kills of any nodes at any time, wrong addresses
// that are put right later, a network that fails, a directory that is lost. It never becomes two.
func TestFormationSchedules(t *testing.T) {
	runSchedules(t, formations, 2, func(t *testing.T, random *rand.Rand) {
		f := newFormation(t, random)
		f.disturb()
		f.mend()
		f.check()
	})
}

// formation is one schedule of interruptions while nodes form a cluster.
type formation struct {
	t        *testing.T
	random   *rand.Rand
	c        *clustertest.Cluster
	expect   int
	wrong    []bool // nodes that tell others a wrong address
	dead     []bool
	emptied  bool            // one node has lost its directory
	clusters map[string]bool // those that were ever seen to be ready
	did      []string
}

func newFormation(t *testing.T, random *rand.Rand) *formation {
	f := &formation{t: t, random: random, clusters: make(map[string]bool)}
	nodes := 2 + f.random.IntN(4)
	expect := nodes/2 + 1 + f.random.IntN(nodes-nodes/2)
	f.expect = expect
	f.wrong, f.dead = make([]bool, nodes), make([]bool, nodes)
	for i := range nodes {
		f.wrong[i] = f.random.IntN(6) == 0
	}
	f.c = clustertest.New(t, nodes, func(i int, cfg *flotilla.Config) {
		cfg.Expect = expect
		if f.wrong[i] {
			cfg.Advertise = f.wrongAddress(nodes)
		}
	})
	f.c.SetLatency(time.Duration(f.random.IntN(3)) * time.Millisecond)
	f.note("%d nodes, %d of them form a cluster, wrong addresses: %v", nodes, expect, f.wrong)
	return f
}

// wrongAddress is nobody's, or another node's.
func (f *formation) wrongAddress(nodes int) string {
	if f.random.IntN(2) == 0 {
		return "n0:1"
	}
	return fmt.Sprintf("n%d:7373", f.random.IntN(nodes))
}

func (f *formation) note(format string, args ...any) {
	f.did = append(f.did, fmt.Sprintf(format, args...))
}

// disturb interrupts the formation a few times.
func (f *formation) disturb() {
	nodes := len(f.dead)
	for range 2 + f.random.IntN(8) {
		f.pause()
		f.look()
		switch i := f.random.IntN(nodes); f.random.IntN(8) {
		case 0, 1, 2:
			f.kill(i)
		case 3, 4:
			f.restart(i)
		case 5:
			f.c.Isolate(i)
			f.note("n%d is cut off", i)
		case 6:
			j := f.random.IntN(nodes)
			f.c.Block(i, j)
			f.note("nothing goes from n%d to n%d", i, j)
		case 7:
			f.c.Heal()
			f.note("the network is mended")
		}
	}
}

// pause is short while a cluster is being formed, and sometimes longer than anybody's patience.
func (f *formation) pause() {
	d := time.Duration(f.random.IntN(60)) * time.Millisecond
	switch f.random.IntN(10) {
	case 0:
		d = time.Duration(f.random.IntN(30)) * time.Second
	case 1, 2:
		d = time.Duration(f.random.IntN(1500)) * time.Millisecond
	}
	time.Sleep(d)
	f.note("%v later", d)
}

func (f *formation) kill(i int) {
	if f.dead[i] {
		return
	}
	f.c.Kill(i)
	f.dead[i] = true
	f.note("n%d is killed", i)
	if f.expect > 2 && !f.emptied && f.random.IntN(8) == 0 && f.ready() == 0 {
		if err := os.RemoveAll(f.c.Config(i).Dir); err != nil {
			f.t.Fatal(err)
		}
		f.emptied = true
		f.note("n%d loses its directory", i)
	}
}

func (f *formation) restart(i int) {
	if !f.dead[i] {
		return
	}
	if f.wrong[i] && f.random.IntN(2) == 0 {
		f.wrong[i] = false
		f.c.Config(i).Advertise = ""
		f.note("the address of n%d is put right", i)
	}
	f.c.Restart(i)
	f.dead[i] = false
	f.note("n%d starts", i)
}

// ready counts nodes that are in a cluster that works.
func (f *formation) ready() (ready int) {
	for _, i := range f.c.Live() {
		if f.c.Nodes[i].Status().Ready {
			ready++
		}
	}
	return ready
}

// look notes which clusters there are.
func (f *formation) look() {
	for _, i := range f.c.Live() {
		if s := f.c.Nodes[i].Status(); s.Ready {
			f.clusters[s.Cluster] = true
		}
	}
}

// mend repairs the network and the addresses, and starts the nodes that are dead.
func (f *formation) mend() {
	f.look()
	f.c.Heal()
	for i := range f.dead {
		if f.wrong[i] && !f.dead[i] {
			f.kill(i)
		}
		f.wrong[i] = false
		f.c.Config(i).Advertise = ""
		f.restart(i)
	}
	f.note("all is mended")
}

// check waits until all are in one cluster.
func (f *formation) check() {
	start := time.Now()
	for {
		f.look()
		if len(f.clusters) > 1 {
			f.fail("there are two clusters: %v", f.clusters)
		}
		if f.ready() == len(f.dead) {
			return
		}
		if time.Since(start) > time.Minute {
			f.fail("no cluster of all within a minute")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (f *formation) fail(format string, args ...any) {
	f.t.Helper()
	for _, i := range f.c.Live() {
		s := f.c.Nodes[i].Status()
		f.note("n%d: %s in cluster %q, leader %q, ready %v, %s", i, s.ID, s.Cluster, s.LeaderName, s.Ready, s.Err)
	}
	f.t.Fatalf(format+"\n%s", append(args, strings.Join(f.did, "\n"))...)
}
