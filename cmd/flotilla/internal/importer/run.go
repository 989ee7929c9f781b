package importer

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/records"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

// workers is how many groups are stored at a time, so that the cluster can commit several together.
const workers = 8

// Store is the cluster that records are imported into.
type Store interface {
	Put(ctx context.Context, mode remote.Mode, all []remote.Record) (remote.PutReply, error)
}

// Import is one run.
type Import struct {
	// Store gets the records.
	Store Store

	// Source is where they are read.
	Source *Source

	// Overwrite replaces records that the cluster has with another content.
	Overwrite bool

	// DryRun stores nothing, and returns what would happen.
	DryRun bool

	// Now is the time that certificates are checked against.
	Now time.Time

	// Progress is called after each group, if it is not nil. Several goroutines call it.
	Progress func()
}

// Result is what happened to one group. The zero Result says that its turn did not come.
type Result struct {
	// Outcome is where it counts.
	Outcome records.Outcome

	// Text is the reason of a refusal, a remark, or empty.
	Text string
}

// Run imports the groups and returns a result for each. The error is the first that is not about
// one group alone. The remaining groups are then given up.
func (im *Import) Run(ctx context.Context, groups []*Group) ([]Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]Result, len(groups))
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				var err error
				if results[i], err = im.take(ctx, groups[i]); err != nil {
					cancel(err)
					return
				}
				if im.Progress != nil {
					im.Progress()
				}
			}
		})
	}
	for i := range groups {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	return results, context.Cause(ctx)
}

// take imports one group. An error says that no node answered.
func (im *Import) take(ctx context.Context, g *Group) (Result, error) {
	all, err := im.Source.Read(g)
	remark := ""
	if err == nil {
		remark, err = check(g, all, im.Now)
	}
	if err != nil {
		return Result{records.Refused, err.Error()}, nil
	}
	reply, err := im.Store.Put(ctx, im.mode(), all)
	if err != nil {
		return Result{}, err
	}
	switch reply.Outcome {
	case remote.Stored:
		return Result{records.Taken, remark}, nil
	case remote.Replaced:
		return Result{records.Replaced, remark}, nil
	case remote.Same:
		return Result{records.Same, remark}, nil
	case remote.Differs:
		if im.DryRun && im.Overwrite {
			return Result{records.Replaced, remark}, nil
		}
		return Result{records.Refused, reply.Reason + "; give -overwrite to replace it"}, nil
	}
	return Result{records.Refused, reply.Reason}, nil
}

func (im *Import) mode() remote.Mode {
	switch {
	case im.DryRun:
		return remote.Check
	case im.Overwrite:
		return remote.Overwrite
	}
	return remote.Keep
}
