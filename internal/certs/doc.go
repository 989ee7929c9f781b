// Package certs obtains, renews and serves the certificates of a node, by certmagic over the
// cluster's storage.
//
// # Guarantees
//
//   - A name costs the cluster one order, however many nodes serve it. Orders stay within
//     certmagic's limit for the whole cluster (package slots). Pauses that an authority demands, or
//     that follow failures, hold for all nodes (package backoff).
//   - A certificate is served by every node as soon as it is stored.
//   - A self-signed certificate is served only while the cluster has never had another one for the
//     name. No node serves it after any node has served a real one.
//   - What is in memory is served whatever becomes of storage, authority and quorum. An expired
//     certificate is served until there is another one.
//   - A node whose wall clock disagrees with most others orders nothing and deletes nothing.
//   - Keys that somebody may know are replaced at once, without a gap: Rekey. The old certificates
//     are revoked, and nothing of their keys is kept.
//   - A handshake for a name that is not served costs a few reads of memory, and writes nothing.
//
// # Assumptions
//
// A write of the storage is acknowledged when every live node has it, and Stored is called on every
// node after each change. Locks of the storage end with their node. Only the validity of
// certificates, and the cleaning, depend on wall clocks.
//
// # Flow
//
//	TLSConfig → nameTable.declare → obtainer: one goroutine for each name without a certificate
//	    loader.refresh        what the storage has is served first, even without quorum
//	    quarantine            a damaged record counts as missing, and a copy of it is kept
//	    prober, AwaitPeers    wait until the name leads here and the peers serve
//	    orderer.order → certmagic → events: orderer.admit (clock, pauses, slot) → authority
//	    loader.refresh
//	challenge: stored by certmagic's solver, answered by every node from the storage (handshakes,
//	    web); the solver itself must not open a port (blocker)
//	push: Stored → pusher → loader.refresh, on every node
//	renewal: renewals → certmagic, when due → events, as for the first order; obtainer takes over at
//	    expiry
//	revocation: staple → replacer → orderer
//	rekey: accounts (new key at the authority), then orderer.order with another key for each name
//	    → push → revocation of the old certificate; the list is in the storage (package rekey)
//	on demand: handshakes → demands → loader.refresh or orderer.order, in slots of their own
//	handshake: admit → wait → provisional (self-signed) → demands → certmagic's cache → staple
//	cleaning: sweep, by one node at a time
//
// Every component gets what it needs in New and points to no component above it.
package certs
