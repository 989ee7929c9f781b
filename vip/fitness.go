package vip

import (
	"context"
	"errors"
	"math"
	"time"
)

const (
	unfitFirst = time.Second
	unfitMax   = 5 * time.Minute
	humbleMax  = time.Minute // shorter than unfitMax, because no other node may want the address
)

// errUnable is the outcome of a tenure whose addresses could not be put in place.
var errUnable = errors.New("the address cannot be put in place")

// fitness records whether a node can put its addresses in place. A node that cannot must not take
// them from one that can, whatever its priority.
type fitness struct {
	failures    int  // in a row
	unexplained int  // failures during which no possible cause has changed
	humble      bool // Check does not see the cause: claim only what no other node wants
}

// explain takes the result of Check after a failure. A Check that finds nothing is trusted once.
func (f *fitness) explain(known bool, why error) {
	f.humble = !known && f.unexplained > 0 || known && why == nil && f.unexplained > 1
}

// failed records a failure. It returns for how long the node is unfit.
func (f *fitness) failed() time.Duration {
	pause := unfitFirst << min(f.failures, 10)
	f.failures++
	if f.humble {
		return min(pause, humbleMax)
	}
	return min(pause, unfitMax)
}

// fit records that the addresses were put in place, or that the obstacle has gone.
func (f *fitness) fit() { *f = fitness{} }

// rank returns the priority with which to claim a role, and whether to wait until it is free.
func (f *fitness) rank(priority int, noPreempt bool) (int, bool) {
	if f.humble {
		return math.MinInt, true
	}
	return priority, noPreempt
}

// check asks the place whether Bind would succeed. known reports whether it can tell.
func check(ctx context.Context, p Place) (known bool, err error) {
	c, ok := p.(Checker)
	if !ok {
		return false, nil
	}
	err = c.Check(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return true, err
}
