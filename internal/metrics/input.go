package metrics

import (
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/status"
)

// Input is what a node knows. The fields of its parts are what their meters have counted since the
// process started.
type Input struct {
	// Now is the time of the node's wall clock.
	Now time.Time

	// Started is when the node was opened.
	Started time.Time

	// Status is the node's status.
	Status status.Status

	// Build is the version of the program's module flotilla, and Go that of Go.
	Build, Go string

	// Cluster is about the other nodes.
	Cluster Cluster

	// Writes are about raft's log.
	Writes Writes

	// Lease is about the node's own lease.
	Lease Lease

	// Roles are about roles of Hold and about floating addresses.
	Roles Roles

	// Certificates are about orders and renewals.
	Certificates Certificates

	// Serving is about the ports for clients.
	Serving Serving

	// Events counts events by kind.
	Events []meter.Labelled
}

// Cluster is about the other nodes.
type Cluster struct {
	LeaderChanges uint64                   // see replica.Meters
	Election      meter.Observed           // see replica.Meters
	Lags          map[string]uint64        // entries, by the ID of the member; of a leader only
	RTT           map[string]time.Duration // by the ID of the member
	Offsets       map[string]time.Duration // how far its wall clock is ahead, by the ID of the member
	Rejected      []meter.Labelled         // by reason
}

// Writes are about raft's log.
type Writes struct {
	OK, Refused, Failed meter.Observed // see replica.Meters
	Waiting             int            // writes that have no answer yet
	ReadersWait         meter.Observed
	LogSync             meter.Observed
	LogBytes            uint64
	Snapshot            time.Time // of the newest snapshot; zero: there is none
}

// Lease is about the node's own lease.
type Lease struct {
	Lost  uint64         // see lease.Meters
	Renew meter.Observed // see lease.Meters
}

// Roles are about roles of Hold and about floating addresses.
type Roles struct {
	Changes   []meter.Labelled // by role and cause, those in which this node became the holder
	Addresses []Address
	Events    []meter.Labelled // by address and kind
}

// Address is a floating address that this node competes for.
type Address struct {
	Addr                    string // without its prefix length
	Bound, Usable, Conflict bool   // see hold.Addresses
}

// Certificates are about orders and renewals.
type Certificates struct {
	Orders       []meter.Labelled // by issuer, action and result
	Order        meter.Observed
	RenewalCheck time.Time        // when the node looked last what is due; zero: not yet
	Challenges   []meter.Labelled // by type and result
}

// Serving is about the ports for clients.
type Serving struct {
	Handshakes    []meter.Labelled // by version, resumed and result
	Handshake     meter.Observed
	HandshakeWait meter.Observed
	Connections   int64
	Refused       []meter.Labelled // by reason
	DrainCut      uint64
}
