package main

// copyRows are about copies of data directories, and about two logs that raft takes for one.
func copyRows() []row {
	return []row{
		m("a process that is not to be believed is not noted", "TestRolledBackDirectory",
			"internal/membership/copies.go", "Meet", `if no != nil {`, `if false {`).of("."),
		m("a node that comes back lets a new process lead", "TestNewProcessLeads",
			"internal/membership/copies.go", "Meet", `if led := c.replica.Port.Transport().LedBy(in.ID); led != in.Incarnation {`,
			`if led := c.replica.Port.Transport().LedBy(in.ID); led != "" {`).of("."),
		m("nobody leads who lacks what a node has applied", "TestRolledBackAndRestored",
			"internal/membership/copies.go", "MayLead", `if applied <= last {`, `if true {`).of("."),
		m("a raft request of an older process is refused", "TestNodeRefusesForRaft",
			"internal/wire/rafttransport/receive.go", "pump", `err = t.cfg.Policy.Fresh(peer, incarnation)`, ``).of("./internal/wire"),
		m("a leader's log is compared before raft sees it", "TestNodeRefusesForRaft",
			"internal/wire/rafttransport/receive.go", "pump", `err = compare(t.cfg.History, peer, rpc.Command)`, ``).of("./internal/wire"),
		m("nobody votes for a log that lacks what a node has applied", "TestNodeRefusesForRaft",
			"internal/wire/rafttransport/receive.go", "pump", `err = mayLead(t.cfg.Policy, rpc.Command)`, ``).of("./internal/wire"),
		m("two logs with one entry have the same before it", "TestCompare",
			"internal/history/log.go", "Compare", `case known && p.known && p.sum != sum:`, `case false:`),
		m("an entry that both logs have is the same", "TestCompare",
			"internal/history/log.go", "Compare", `case p.term != 0 && p.term != e.Term, known && p.known && p.sum != sum:`, `case p.term != 0 && p.term != e.Term:`),
		m("an entry that was applied is not replaced", "TestCompare",
			"internal/history/log.go", "Compare", `case p.term != 0 && p.term != c.Term && c.Index <= applied:`, `case false:`),
		m("what was applied is not deleted", "TestAppliedEntriesStay",
			"internal/history/log.go", "DeleteRange", `if applied := l.applied(); hi >= last && lo <= last && lo <= applied {`, `if applied := l.applied(); hi >= last && lo <= last && lo < applied {`),
		m("a deleted entry has no sum", "TestSumsFollowTheLog",
			"internal/history/log.go", "DeleteRange", `l.points = l.points[:min(lo-l.base, uint64(len(l.points)))]`, ``),
		m("an older directory is refused", "TestRolledBackDirectory",
			"internal/membership/copies.go", "judge", `case q.recorded && !q.knows && gone:`, `case false:`).of("."),
		m("a process that may live keeps its place", "TestWhoHasThePlaceOfItsNode",
			"internal/membership/copies.go", "judge", `gone := q.life == lifeEnded || !q.present`, `gone := true`),
		m("a copy beside its original is refused", "TestWhoHasThePlaceOfItsNode",
			"internal/membership/copies.go", "judge", `case q.life == lifeGoes && (q.recorded || q.knows):`, `case false:`),
		m("a log that was set back is refused", "TestWhoHasThePlaceOfItsNode",
			"internal/membership/copies.go", "judge", `case q.last >= q.stored:`, `case true:`),
	}
}
