package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/kv"
)

// schedule is a job that the cluster does once in each period.
//
// It is done for a period when that is recorded, and it is recorded once. A node that dies between
// the job and the record leaves no trace of the job in the cluster, so the next node does it again.
// A job whose effects are elsewhere should therefore expect to be repeated, and can tell by the
// time at which it was due. Periods in which no node was there are left out. But the job of the
// present one is done as soon as a node is there.
type schedule struct {
	name  string        // of the role, and of the record
	every time.Duration // the length of a period, counted from the zero time in UTC

	// job does the job that was due at that time. It stops when ctx ends: then the node must not go
	// on, because another one may have begun. After an error the job is tried again, after a pause,
	// by any node.
	job func(ctx context.Context, due time.Time) error
}

// run does the job when it is due and this node has the role, until ctx ends or the node is closed.
// It returns the reason. Run it on every node.
func (s *schedule) run(ctx context.Context, node *flotilla.Node) error {
	return node.HoldLoop(ctx, flotilla.Role{Name: s.name}, func(ctx context.Context, _ flotilla.Tenure) error {
		last, err := s.done(ctx, node)
		if err != nil {
			return err
		}
		for {
			due := time.Now().Truncate(s.every)
			// The clock of the node before may have been ahead of this one's.
			if due.After(last) {
				if err := s.job(ctx, due); err != nil {
					return err
				}
				if err := s.record(ctx, node, due); err != nil {
					return err
				}
				last = due
			}
			select {
			case <-time.After(time.Until(due.Add(s.every))):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}

// done returns the last time for which the job is recorded as done, and the zero time if there is
// none. A node that has just been given the role finds what the node before has recorded.
func (s *schedule) done(ctx context.Context, node *flotilla.Node) (last time.Time, err error) {
	e, err := s.records(node).Get(ctx, s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err == nil {
		err = last.UnmarshalText(e.Value)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("when %s was done last: %w", s.name, err)
	}
	return last, nil
}

// record records that the job is done. ctx is that of the role, so this is a fenced write: the
// cluster refuses it if another node has been given the role meanwhile.
func (s *schedule) record(ctx context.Context, node *flotilla.Node, due time.Time) error {
	b, err := due.UTC().MarshalText()
	if err == nil {
		_, err = s.records(node).Put(ctx, s.name, b, kv.Options{})
	}
	if err != nil {
		return fmt.Errorf("recording that %s is done: %w", s.name, err)
	}
	return nil
}

// records is the bucket in which all schedules of the program have their records.
func (s *schedule) records(node *flotilla.Node) *kv.Store { return node.KV("schedule") }
