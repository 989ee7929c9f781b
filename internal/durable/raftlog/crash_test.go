package raftlog

import (
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

var errCrash = errors.New("the process is killed")

// countdown stops everything that a log does to its files after a number of calls, as a kill does.
type countdown struct {
	journal.OS
	left int
}

func (c *countdown) step() error {
	if c.left--; c.left < 0 {
		return errCrash
	}
	return nil
}

// WriteAt implements journal.System.
func (c *countdown) WriteAt(f *os.File, b []byte, off int64) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.OS.WriteAt(f, b, off)
}

// Sync implements journal.System.
func (c *countdown) Sync(f *os.File) error { return c.step() }

// Rename implements journal.System.
func (c *countdown) Rename(from, to string) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.OS.Rename(from, to)
}

// Remove implements journal.System.
func (c *countdown) Remove(path string) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.OS.Remove(path)
}

// boltCountdown does the same for raft-boltdb.
type boltCountdown struct {
	boltlog.Store
	*countdown
}

// StoreLogs implements boltlog.Store.
func (b boltCountdown) StoreLogs(logs []*raft.Log) error {
	if err := b.step(); err != nil {
		return err
	}
	return b.Store.StoreLogs(logs)
}

// DeleteRange implements boltlog.Store.
func (b boltCountdown) DeleteRange(lo, hi uint64) error {
	if err := b.step(); err != nil {
		return err
	}
	return b.Store.DeleteRange(lo, hi)
}

// Set implements boltlog.Store.
func (b boltCountdown) Set(k, v []byte) error {
	if err := b.step(); err != nil {
		return err
	}
	return b.Store.Set(k, v)
}

// TestKillAtEveryStep kills the process at each call to the system and to raft-boltdb in turn,
// while it appends, cuts, compacts, votes, moves and removes. The log then holds what was
// acknowledged, or that and the change that was being made.
func TestKillAtEveryStep(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	most, pace, seeds := 400, 30, uint64(1)
	if *long {
		pace, seeds = 400, 4
	} else {
		t.Log("one series, and fewer and fewer of its later steps; -long takes four and each")
	}
	kills := 0
	for seed := range seeds {
		for steps := 0; steps < most; steps += 1 + steps/pace {
			d := newDir(t)
			c := &countdown{left: steps}
			l, err := d.open(Options{
				MoveAfter: 200 << 10, Sys: c, Wrap: func(s boltlog.Store) boltlog.Store { return boltCountdown{s, c} },
			})
			must(t, err)
			r := rand.New(rand.NewPCG(seed, 3))
			m := &model{term: 1}
			before := *m
			for i := 0; err == nil && i < 300; i++ {
				if i%5 == 4 {
					err = tidy(l)
					continue
				}
				before = *m
				change := m.next(r)
				err = l.Run(func() error { return change(l) })
			}
			if err != nil && !errors.Is(err, errCrash) {
				t.Fatalf("seed %d, step %d: %v", seed, steps, err)
			}
			if err != nil {
				kills++
			}
			_ = l.Close()
			_ = os.Remove(d.log() + diskfile.TmpSuffix)
			again := d.mustOpen(t, Options{})
			got := all(t, again)
			if !isLike(got, before.holds()) && !isLike(got, m.holds()) {
				t.Errorf("seed %d, step %d: the log holds %d to %d, term %d", seed, steps, got.First, got.Last, got.Term)
				disktest.Diff(t, m.holds(), got)
			}
			must(t, again.Close())
		}
	}
	t.Logf("%d kills", kills)
}

// isLike reports whether a log is as it was. It may begin earlier: a deletion at the beginning is
// not written at once. It may have forgotten a term in which nothing was promised.
func isLike(got, want disktest.Log) bool {
	if want.Last == 0 && got.Last != 0 || got.Last != want.Last || got.First > want.First {
		return false
	}
	if want.Last > 0 {
		got.Entries, got.First = got.Entries[want.First-got.First:], want.First
	}
	got.Term, want.Term = 0, 0
	return len(got.Entries) == 0 && len(want.Entries) == 0 && got.Candidate == want.Candidate || reflect.DeepEqual(got, want)
}
