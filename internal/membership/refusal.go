package membership

import (
	"errors"
	"slices"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

// Refusal is why a process cannot go on as its node. It is part of the answer to a greeting.
type Refusal struct {
	Kind string // one of the kinds below, or one of a later version
	Why  string // a text that goes on from "this node refuses it: "
}

// The kinds of refusals. A process that is refused ends, unless it only has to wait.
const (
	refusedForeign  = "foreign"  // it belongs to another cluster
	refusedRemoved  = "removed"  // the node is no member any more
	refusedCopy     = "copy"     // another process of the node lives, and has the node's place
	refusedOlder    = "older"    // another process of the node has had the node's place, and is gone
	refusedSettings = "settings" // it is not configured as the others are
	refusedWait     = "wait"     // it is not known yet which process has the node's place
	refusedVersion  = "version"  // its program does not support the cluster version

	refusedSuperseded = "superseded" // it belongs to an older incarnation of the cluster
	refusedOutdated   = "outdated"   // the node that answers does
	refusedTwice      = "twice"      // its incarnation and that of the node that answers are as new

	// refusedDropped is refusedRemoved, of a node whose secrets were dropped too. No peer answers with
	// it: the node asks.
	refusedDropped = "dropped"
)

// weight says which of two refusals counts: the one with the higher weight.
func (r *Refusal) weight() int {
	return slices.Index([]string{refusedWait, refusedOlder, refusedCopy, refusedVersion, refusedForeign, refusedRemoved, refusedSuperseded}, r.Kind)
}

// setsAside reports whether the node can go on as a new one, without the state of its directory.
func (r *Refusal) setsAside() bool {
	return r.Kind == refusedOlder || r.Kind == refusedSuperseded || r.Kind == refusedDropped
}

// StartsAnew reports whether a node whose part in the cluster has ended with err can go on as a new
// one: when it is opened again, it sets its state aside and joins.
func StartsAnew(err error) bool {
	no := new(RefusedError)
	return errors.As(err, &no) && no.setsAside()
}

// RefusedError is the error of a node that a peer has refused.
type RefusedError struct {
	Refusal
	peer string // the address of the peer
}

// Error says which peer refuses the node, and why.
func (e *RefusedError) Error() string {
	return "the node at " + e.peer + " refuses this node: " + e.Why
}

// Is makes the refusal of a removed node an errs.ErrRemoved.
func (e *RefusedError) Is(target error) bool {
	return target == errs.ErrRemoved && (e.Kind == refusedRemoved || e.Kind == refusedDropped)
}

// worst returns the refusal that counts. Either may be nil.
func worst(a, b *RefusedError) *RefusedError {
	if a == nil || b != nil && b.weight() > a.weight() {
		return b
	}
	return a
}
