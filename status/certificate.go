package status

import "time"

// Certificate describes a certificate that a node serves.
type Certificate struct {
	Name   string // the domain
	Issuer string // the issuer's common name; empty: there is no certificate yet
	Serial string // hexadecimal
	// NotBefore is from when on it is valid. Authorities may say an hour before they issued it. Zero:
	// there is none yet.
	NotBefore time.Time `json:",omitzero"`
	NotAfter  time.Time // zero: there is none yet
	DaysLeft  int       // until NotAfter, negative after it; 0 if there is none yet
	// Renewal is when it is to be renewed: as the authority suggests, and not later than when a third
	// of its life is left. Zero: there is none yet.
	Renewal time.Time `json:",omitzero"`
	// OCSPNextUpdate is until when its OCSP staple is valid. Zero: it has none.
	OCSPNextUpdate time.Time `json:",omitzero"`
	// SelfSigned says that the cluster has never had a certificate for Name. Clients get a self-signed
	// one until the authority has answered. Issuer, Serial and NotAfter are empty then.
	SelfSigned bool `json:",omitempty"`
	// OnDemand says that Name was not declared: a handshake asked for it, and OnDemand in
	// TLS.Configure of the node's configuration allowed it.
	OnDemand bool   `json:",omitempty"`
	Err      string // why there is no certificate, or no newer one; empty: all is well
	// Next is when the next order is tried, if Err is not empty. Failures is how many orders for Name
	// the authority has refused since the last one that it did not refuse, on all nodes together.
	Next     time.Time `json:",omitzero"`
	Failures int       `json:",omitempty"`
}

// Tickets describes the keys of session tickets that the cluster shares.
type Tickets struct {
	// identifies the current key without revealing it; empty: there is none yet, and no other node
	// opens this node's tickets
	Key        string
	Since      time.Time // when it became current, by the clock of the leader at that time
	AgeSeconds int64     // seconds since then, by this node's clock
	Previous   int       // number of older keys whose tickets are still accepted
}
