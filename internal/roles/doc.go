// Package roles holds roles and locks for the callers of this node.
//
// A role or lock is a queue of claims in the replicated state. The claim at the head holds it. A
// Holder proposes a claim, waits until the claim is at the head, and runs the caller's function
// during the Tenure that follows. Then it gives the claim up, and the state machine grants the
// next one in the same log entry.
//
// # Guarantees
//
//   - Two tenures of one role never overlap. A tenure ends at its Deadline at the latest, and the
//     cluster grants the role again only after that.
//   - A tenure begins only under a lease that its node can rely on.
//   - The context of a tenure ends when the lease is about to end, when the holder is asked to hand
//     over, and when the node ends. It consults the clock, so a process that stood still finds out
//     at once.
//   - A holder that is asked to hand over has YieldTime. After that the role goes on without it.
//   - A claim whose caller has left is withdrawn, and nobody waits for that.
//
// # Assumptions
//
// Package lease tells until when this node has a lease, and package replica puts commands into
// the log. Clocks run at nearly the same rate. The caller passes on what the state machine has
// applied: OnClaims, OnRoles and OnSessions do not block and may be called by raft's goroutine.
//
// # Flow
//
//	Hold → claimer: propose the claim, wait for the grant → tenures: begin → the caller's function
//	OnClaims → waiters: look again; tenures: yield if the state asks for it
//	OnLost → tenures: end the contexts
//	end of the function → release, or withdrawals if no leader answers
package roles
