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
	humbleMax  = time.Minute // nobody else may want it
)

// Checker is a Place that can find out whether Bind would succeed, without anybody noticing.
type Checker interface {
	// Check returns why it would not; nil if nothing speaks against it, and an error that wraps errors.ErrUnsupported if that
	// cannot be told.
	Check(ctx context.Context) error
}

// errUnable is the outcome of a tenure whose addresses could not be put in place.
var errUnable = errors.New("the address cannot be put in place")

// fitness is what a node has learnt about whether it can put its addresses in place. A node that cannot is not to take them from one that
// can, whatever its priority.
type fitness struct {
	failures    int  // in a row
	unexplained int  // of them, those in which nothing has changed that may have been the cause
	humble      bool // addresses could not be put in place, and Check does not see why: only what nobody else wants is claimed
}

// explain takes in what Check says after a failure. One that finds nothing may be right, once.
func (f *fitness) explain(known bool, why error) {
	f.humble = !known && f.unexplained > 0 || known && why == nil && f.unexplained > 1
}

// failed notes a failure, and returns for how long the node is unfit.
func (f *fitness) failed() time.Duration {
	pause := unfitFirst << min(f.failures, 10)
	f.failures++
	if f.humble {
		return min(pause, humbleMax)
	}
	return min(pause, unfitMax)
}

// fit notes that the addresses were put in place, or that what was in the way has gone.
func (f *fitness) fit() { *f = fitness{} }

// rank returns with which priority to claim a role, and whether to wait until it is free.
func (f *fitness) rank(cfg *Config) (priority int, noPreempt bool) {
	if f.humble {
		return math.MinInt, true
	}
	return cfg.Priority, cfg.NoPreempt
}

// check asks the place. known says whether it can tell.
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
