package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/kv"
)

// jobTime is how long the job takes.
const jobTime = 5 * time.Second

// diary records what the job does, on all nodes, by the time at which it was due.
type diary struct {
	mu           sync.Mutex
	begun, ended map[time.Time]int
	failures     int // that are to come
}

func newDiary(failures int) *diary {
	return &diary{begun: make(map[time.Time]int), ended: make(map[time.Time]int), failures: failures}
}

func (d *diary) job(ctx context.Context, due time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun[due]++
	if d.failures > 0 {
		d.failures--
		return errors.New("out of paper")
	}
	d.mu.Unlock()
	timer := time.NewTimer(jobTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	d.mu.Lock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d.ended[due]++
	return nil
}

// check fails the test unless the job was done once for that time, and was begun so often.
func (d *diary) check(t *testing.T, due time.Time, begun int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun[due] != begun || d.ended[due] != 1 {
		t.Errorf("%s: begun %d times, want %d; ended %d times, want once", due.Format(time.TimeOnly), d.begun[due], begun, d.ended[due])
	}
}

// cluster is three nodes that do the job once a minute.
type cluster struct {
	*clustertest.Cluster
	t *testing.T
	s schedule
}

func newCluster(t *testing.T, d *diary) *cluster {
	c := &cluster{Cluster: clustertest.New(t, 3, nil), t: t, s: schedule{name: "test", every: time.Minute, job: d.job}}
	for i := range c.Nodes {
		c.run(i)
	}
	c.Settle()
	return c
}

// run has a node take part.
func (c *cluster) run(i int) { go c.s.run(c.t.Context(), c.Nodes[i]) }

// restart starts a node that has ended.
func (c *cluster) restart(i int) {
	c.Restart(i)
	c.run(i)
}

// holder returns the node whose turn it is.
func (c *cluster) holder() int {
	c.t.Helper()
	for _, i := range c.Live() {
		if c.Nodes[i].Holder("test").Own {
			return i
		}
	}
	c.t.Fatal("no node holds the role")
	return -1
}

// The job is done once a minute, whatever happens to the node that does it.
func TestOncePerPeriod(t *testing.T) {
	kill, stop := (*cluster).Kill, (*cluster).Stop
	isolate, heal := (*cluster).Isolate, func(c *cluster, _ int) { c.Heal() }
	for _, test := range []struct {
		name      string
		end, back func(c *cluster, node int)
		at        time.Duration // in each period
		begun     int           // how often the job is begun in it
	}{
		{"killed", kill, (*cluster).restart, 30 * time.Second, 1},
		{"killed in the job", kill, (*cluster).restart, jobTime / 2, 2},
		{"killed when the job is due", kill, (*cluster).restart, time.Minute - 100*time.Millisecond, 1},
		{"restarted", stop, (*cluster).restart, 30 * time.Second, 1},
		{"restarted in the job", stop, (*cluster).restart, jobTime / 2, 2},
		{"cut off", isolate, heal, 30 * time.Second, 1},
		{"cut off in the job", isolate, heal, jobTime / 2, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDiary(0)
				c := newCluster(t, d)
				first, last := time.Now().Truncate(time.Minute), time.Time{}
				for range 5 {
					due := time.Now().Truncate(time.Minute).Add(time.Minute)
					time.Sleep(time.Until(due.Add(test.at)))
					node := c.holder()
					test.end(c, node)
					time.Sleep(20 * time.Second)
					test.back(c, node)
					c.Settle()
					d.check(t, due, test.begun)
					last = due
				}
				for due := first; !due.After(last); due = due.Add(time.Minute) {
					if n := d.ended[due]; n != 1 {
						t.Errorf("%s: ended %d times, want once", due.Format(time.TimeOnly), n)
					}
				}
			})
		})
	}
}

// A job that fails is tried again.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary(2)
		newCluster(t, d)
		due := time.Now().Truncate(time.Minute)
		time.Sleep(30 * time.Second)
		d.check(t, due, 3)
	})
}

// What one node records, all know. A record that cannot be read is an error.
func TestRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		s := schedule{name: "test", every: time.Minute}
		if last, err := s.done(t.Context(), c.Nodes[0]); err != nil || !last.IsZero() {
			t.Errorf("without a record: %v, %v", last, err)
		}
		due := time.Now().Truncate(time.Minute)
		if err := s.record(t.Context(), c.Nodes[0], due); err != nil {
			t.Fatal(err)
		}
		if last, err := s.done(t.Context(), c.Nodes[1]); err != nil || !last.Equal(due) {
			t.Errorf("on another node: %v, %v, want %v", last, err, due)
		}
		if _, err := s.records(c.Nodes[0]).Put(t.Context(), s.name, []byte("yesterday"), kv.Options{}); err != nil {
			t.Fatal(err)
		}
		if last, err := s.done(t.Context(), c.Nodes[1]); !last.IsZero() || err == nil || !strings.Contains(err.Error(), "when test was done last") {
			t.Errorf("a damaged record: %v, %v", last, err)
		}
	})
}
