package event

// Kind is the kind of an Event. Its text does not change between versions.
type Kind string

// The kinds of events of the cluster. Every node that learns of one records it. Behind each is its
// subject.
const (
	LeaderElected    Kind = "leader_elected"    // the node that leads; Outage: without one before
	SessionOpened    Kind = "session_opened"    // the node, which takes part from now on
	SessionSuspected Kind = "session_suspected" // the node of which the leader has not heard
	SessionCleared   Kind = "session_cleared"   // the node of which the leader has heard again
	SessionEnded     Kind = "session_ended"     // the node, which holds nothing any more
	RoleMoved        Kind = "role_moved"        // the role; From, To and Outage say how
	RoleHeldDown     Kind = "role_held_down"    // the role, which nobody gets for a moment
	MemberAdded      Kind = "member_added"      // the node
	MemberRemoved    Kind = "member_removed"    // the node
	VoteGiven        Kind = "vote_given"        // the node, which votes from now on
	VoteTaken        Kind = "vote_taken"        // the node, which votes no more
	VersionRaised    Kind = "version_raised"    // none: the cluster version is higher
	TicketsDropped   Kind = "tickets_dropped"   // none: all session tickets are worthless
	KeysReplaced     Kind = "keys_replaced"     // none: a step of replacing secret or data key
	NodeEvicted      Kind = "node_evicted"      // the node
)

// The kinds of events of one node. Behind each is its subject, none if that is the node itself.
const (
	LeaseLost           Kind = "lease_lost"           // none: the node gave up what it held
	DrainBegun          Kind = "drain_begun"          // none: the node gets no new clients
	DrainEnded          Kind = "drain_ended"          // none: it is drained, or takes part again
	AddressBound        Kind = "address_bound"        // the addresses that are here
	AddressReleased     Kind = "address_released"     // the addresses that are not here any more
	AddressKept         Kind = "address_kept"         // the addresses that stay without a lease
	AddressConflict     Kind = "address_conflict"     // the addresses that another machine claims
	AddressFailed       Kind = "address_failed"       // the addresses that cannot be put in place
	AddressMended       Kind = "address_mended"       // the addresses that somebody had changed
	CertificateObtained Kind = "certificate_obtained" // the domain, ordered for the first time
	CertificateRenewed  Kind = "certificate_renewed"  // the domain, ordered again
	CertificateServed   Kind = "certificate_served"   // the domain, which another node has ordered
	CertificateRevoked  Kind = "certificate_revoked"  // the domain
	CertificateReplaced Kind = "certificate_replaced" // the domain, whose key was replaced
	SelfSigned          Kind = "self_signed"          // the domain without a real certificate
	OrderRefused        Kind = "order_refused"        // the domain whose order has failed
	AuthorityPaused     Kind = "authority_paused"     // the issuer, which wants fewer requests
	DiskFailed          Kind = "disk_failed"          // none: the node takes no part meanwhile
	DiskHangs           Kind = "disk_hangs"           // none: a write takes too long
	DiskWorks           Kind = "disk_works"           // none: it works again
	NodeFailed          Kind = "node_failed"          // none: the node takes no part any more
	NodeReset           Kind = "node_reset"           // the former node, whose state is set aside
	PeerRefused         Kind = "peer_refused"         // the node that was refused
	ClockWrong          Kind = "clock_wrong"          // the node whose clock differs, none: this one
	ClockRight          Kind = "clock_right"          // the node whose clock agrees again
	StateFull           Kind = "state_full"           // the part of the state with little room left
	StateRoom           Kind = "state_room"           // the part of the state with more room again
	ConfigDiffers       Kind = "config_differs"       // none: settings differ between nodes
	WaitBegun           Kind = "wait_begun"           // none: Text says what the node waits for
	WaitEnded           Kind = "wait_ended"           // what the node has waited for
	BackupMade          Kind = "backup_made"          // the backup, which was verified
	BackupFailed        Kind = "backup_failed"        // none: no backup could be made
	GuardFailed         Kind = "guard_failed"         // none: the guard died or does not start
)
