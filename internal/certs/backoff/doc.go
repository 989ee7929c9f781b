// Package backoff holds the pauses between orders, for the whole cluster: what one node learns from
// an authority, all nodes know.
//
// It has failed orders, refusals and the pauses that authorities demand, in records of the
// cluster's storage below flotilla/orders:
//
//	names/NAME                 the orders for a name that failed, one after another
//	limits/ISSUER/all          the authority accepts no requests at all
//	limits/ISSUER/new          it accepts no orders; not yet sure while only one name was refused
//	limits/ISSUER/revoke       it revokes nothing
//	limits/ISSUER/name/NAME    it accepts no orders for this name
//
// The record of a name is written only under the lock of the name. The limits have no lock: of two
// nodes that learn something at once the later one wins, and what was lost is learned again.
//
// A pause is a duration and the wall clock of the node that wrote it. It is over for a reader when
// the reader's own wall clock says so, or when the reader has known it for its whole length. So it
// ends in time after all nodes were restarted, and a wrong clock can at most double it.
package backoff
