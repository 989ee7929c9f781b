package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ConflictPolicy says what a node does when another machine claims an address that the cluster has
// granted to this node.
type ConflictPolicy int

const (
	// Defend keeps the address, as RFC 5227 (2.4, c) prescribes for an address that others depend
	// on. This node announces it again, at most once in ten seconds, for as long as the conflict
	// lasts. The cluster knows that no other node of it has the address, so the other machine is
	// misconfigured.
	Defend ConflictPolicy = iota

	// Yield announces the address once, and gives it up if it is claimed again within ten seconds,
	// as RFC 5227 (2.4, b) prescribes for hosts. The role is handed over. This node competes for it
	// again ten seconds later, after further conflicts a minute later.
	Yield
)

// Times of RFC 5227, and ours.
const (
	conflictPause  = 10 * time.Second // after another machine was found to have the address
	conflictMax    = time.Minute      // after it was found again
	defendInterval = 10 * time.Second
	reportEvery    = 10 * time.Minute // of a conflict that goes on
	conflictOver   = 35 * time.Second // without a claim; machines are asked three times in it
)

// ConflictError is the Err of an event of kind Conflict: another machine answers for an address, or
// wants it.
type ConflictError struct {
	Addr  netip.Addr       // the address, which is in place here
	MAC   net.HardwareAddr // of the other machine
	Probe bool             // it asks for the address in order to take it, and has not taken it
}

// Error implements error.
func (e *ConflictError) Error() string {
	if e.Probe {
		return fmt.Sprintf("another machine, with the hardware address %v, wants to take %v, and is told that it is in use",
			e.MAC, e.Addr)
	}
	return fmt.Sprintf("another machine, with the hardware address %v, claims %v: look for it there, and take the address away",
		e.MAC, e.Addr)
}

// errConflict is the reason for giving an address up to a machine outside the cluster.
var errConflict = errors.New("somebody else answers for the address")

// defence decides what a node does about other machines while it holds an address.
type defence struct {
	policy   ConflictPolicy
	defended time.Time // the last announcement because of a claim
	reported map[string]time.Time
	until    time.Time // when the last claim is forgotten; zero: there is none
}

// observe takes a claim. It returns whether to announce the address, to report the claim, and to
// give the address up.
func (d *defence) observe(c *ConflictError, now time.Time) (announce, report, yield bool) {
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

// over reports, once, that there was no claim for a while.
func (d *defence) over(now time.Time) bool {
	if d.until.IsZero() || now.Before(d.until) {
		return false
	}
	d.until, d.reported = time.Time{}, nil
	return true
}
