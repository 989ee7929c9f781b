package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ConflictPolicy says what a node does when another machine claims an address that the cluster has given
// to this node.
type ConflictPolicy int

const (
	// Defend keeps the address, as RFC 5227 (2.4, c) has it for one that others depend on: this node announces it
	// anew, once in ten seconds at most, for as long as that goes on. The cluster knows that none of its nodes has it, so
	// the other machine is configured wrongly.
	Defend ConflictPolicy = iota

	// Yield announces it once, and gives the address up if it is claimed again within ten seconds, as RFC 5227 (2.4, b) has
	// it for hosts. The role is handed over, and this node competes for it again ten seconds later, then after a minute.
	Yield
)

// Times of RFC 5227, and ours.
const (
	defendInterval = 10 * time.Second
	reportEvery    = 10 * time.Minute // of a conflict that goes on
	conflictOver   = 35 * time.Second // without a claim: a silent machine is asked three times in it
)

// ConflictError is the Err of an event of kind Conflict: another machine answers for an address, or wants it.
type ConflictError struct {
	Addr  netip.Addr       // that is in place here
	MAC   net.HardwareAddr // of the other machine
	Probe bool             // it asks whether anybody has the address, in order to take it, and was answered; it has not taken it
}

// Error implements error.
func (e *ConflictError) Error() string {
	if e.Probe {
		return fmt.Sprintf("another machine, with the hardware address %v, wants to take %v, and is told that it is in use", e.MAC, e.Addr)
	}
	return fmt.Sprintf("another machine, with the hardware address %v, claims %v: look for it there, and take the address away", e.MAC, e.Addr)
}

// Contested is a Place that hears of others who claim its addresses while they are in place.
type Contested interface {
	// Claims returns a channel of what other machines say of the addresses; always the same.
	Claims() <-chan *ConflictError
}

// errConflict is why an address is given up to a machine that is not of the cluster.
var errConflict = errors.New("somebody else answers for the address")

// defence is what a node does about other machines while it holds an address.
type defence struct {
	policy   ConflictPolicy
	defended time.Time // when the address was last announced because of a claim
	reported map[string]time.Time
	until    time.Time // when the last claim is forgotten; zero: there is none
}

// heard takes a claim in. It says whether to announce the address, to tell of the claim, and to give the address up.
func (d *defence) heard(c *ConflictError, now time.Time) (announce, report, yield bool) {
	key := fmt.Sprint(c)
	if last, known := d.reported[key]; !known || now.Sub(last) >= reportEvery {
		if d.reported == nil || len(d.reported) >= 64 {
			d.reported = make(map[string]time.Time)
		}
		d.reported[key], report = now, true
	}
	if c.Probe {
		return false, report, false // the kernel has answered it
	}
	d.until = now.Add(conflictOver)
	if !d.defended.IsZero() && now.Sub(d.defended) < defendInterval {
		return false, report, d.policy == Yield
	}
	d.defended = now
	return true, report, false
}

// over reports, once, whether no claim was heard for a while.
func (d *defence) over(now time.Time) bool {
	if d.until.IsZero() || now.Before(d.until) {
		return false
	}
	d.until, d.reported = time.Time{}, nil
	return true
}
