package guard

import (
	"context"
	"sync"
	"time"
)

const (
	finalTime   = 10 * time.Second // for each of the two steps that are retried
	attemptTime = 3 * time.Second  // for one attempt to send a death notice
)

// guardedSet is what a guard removes, and sends, when the program is dead.
type guardedSet struct {
	addrs   []Addr
	table   string
	notices [][]byte
}

// cleanUp does everything that is due after the program's death. It sends the death notices only if
// the addresses are gone, because a notice admits the next owner. It sends all at the same time:
// one that nobody takes must not delay the others. The table comes last: it does no harm, and the
// kernel takes some hundredths of a second to remove it. report is given sentences for people, by
// several goroutines. cleanUp returns whether the addresses are gone.
func (h Hooks) cleanUp(set guardedSet, report func(format string, args ...any)) bool {
	if len(set.addrs) > 0 {
		var last string
		err := retry(time.Millisecond, 50*time.Millisecond, func(context.Context) error {
			err := h.Remove(set.addrs)
			if err != nil && err.Error() != last {
				last = err.Error()
				report("addresses are not removed yet: %v", err)
			}
			return err
		})
		if err != nil {
			report("giving up; the kernel removes the addresses when their lifetimes end, " +
				"and the cluster learns of the program's death when its lease ends")
			return false
		}
	}
	var sending sync.WaitGroup
	for _, notice := range set.notices {
		if h.SendNotice == nil {
			break
		}
		sending.Go(func() {
			err := retry(50*time.Millisecond, time.Second, func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, attemptTime)
				defer cancel()
				return h.SendNotice(ctx, notice)
			})
			if err != nil {
				report("a death notice could not be sent; "+
					"the cluster learns of the program's death when the lease ends: %v", err)
			}
		})
	}
	sending.Wait()
	if set.table != "" && h.RemoveTable != nil {
		if err := h.RemoveTable(set.table); err != nil {
			report("table %s is left behind: %v", set.table, err)
		}
	}
	return true
}

// retry calls f until it returns nil, with pauses that double up to longest. It gives up after
// finalTime.
func retry(pause, longest time.Duration, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), finalTime)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
		pause = min(2*pause, longest)
	}
}
