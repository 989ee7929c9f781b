package main

// incarnationRows are about backups, and about clusters that were restored or recovered.
func incarnationRows() []row {
	return []row{
		m("a node of an older incarnation is refused", "TestFormerNodeComesBack",
			"internal/membership/incarnations.go", "refuseOther", `case theirs < ours:`, `case false:`).of("."),
		m("a node of an older incarnation gives up", "TestRecoveredMeetsMajority",
			"internal/membership/incarnations.go", "refuseOther", `if g.replica.Raft.Load() != nil {`, `if false {`).of("."),
		m("a program that serves learns that its node has to start anew", "TestNodeServeEndsToStartAnew",
			"serve.go", "mustStartAnew", `if err := context.Cause(l.Works); l.Open.Err() == nil && membership.StartsAnew(err) {`, `if err := context.Cause(l.Works); err == nil {`),
		m("Serve opens a node again that has to start anew", "TestServeStartsAnew",
			"serve.go", "", `if ctx.Err() != nil || !membership.StartsAnew(err) {`, `if true {`),
		m("a node that would not start anew goes on serving", "TestServeGoesOnWithoutTheCluster",
			"internal/membership/refusal.go", "StartsAnew", `return errors.As(err, &no) && no.setsAside()`, `return !errors.As(err, &no) || no.setsAside()`).of("."),
		m("nodes of a newer incarnation look for others", "TestRecoveredMeetsMajority",
			"internal/membership/round.go", "MeetStrangers", `if !slices.ContainsFunc(found, func(addr string) bool { return !known[addr] }) {`, `if known != nil {`).of("."),
		m("no node joins one of two incarnations that are as new", "TestNewestIncarnation",
			"internal/membership/incarnations.go", "newestIncarnation", `if g.Cluster == cluster && g.ClusterIncarnation != newest && generation(g.ClusterIncarnation) == generation(newest) {`, `if g.Cluster == cluster && g.ClusterIncarnation == newest+1<<40 {`),
		m("fences of a restored cluster come after those of the former one", "TestRestored",
			"internal/state/backup.go", "Restored", `n.Index = max(n.Index+indexStep, floor)`, `n.Index = max(n.Index, floor)`),
		m("a backup that is restored twice gives out no fence twice", "TestRestored",
			"internal/state/backup.go", "Restored", `n.Index = max(n.Index+indexStep, floor)`, `n.Index += indexStep`),
		m("a restore replaces no node", "TestRestoreRefuses",
			"internal/membership/restore.go", "mayRestore", `case id.Restoring, !id.Member && id.Cluster == "" && id.Formation == nil && !dir.HasLog():`, `case true:`).of("."),
		m("a restore does not replace what a recovery has to set aside", "TestRecoverInterrupted",
			"internal/membership/restore.go", "mayRestore", `case id.Restoring && (id.Member || id.Kept != ""):`, `case false:`).of("."),
		m("no node starts with a directory that is not complete", "TestRecoverInterrupted",
			"internal/membership/identity_load.go", "LoadIdentity", `case id.Restoring:`, `case false:`).of("."),
		m("a recovery that is repeated sets aside once", "TestRecoverInterrupted",
			"internal/membership/restore.go", "BeginRecovery", `if old.Member { // the survivor's own, and not that of an earlier attempt`, `if true {`).of("."),
		m("a backup counts when it was read back", "TestFailures",
			"internal/backups/keeper.go", "backup", `if err := k.verify(ctx, v); err != nil {`, `if err := k.verify(ctx, v); err != nil && v.Index == 0 {`),
		m("a backup that comes back is the one that was stored", "TestFailures",
			"internal/backups/keeper.go", "verify", `if err = errors.Join(err, r.Close()); err == nil && (got.Index != v.Index || got.Size != v.Size) {`, `if err = errors.Join(err, r.Close()); false {`),
		m("the newest backup of each period is kept", "TestOld",
			"internal/backups/name.go", "old", `if period := b.made.Truncate(every); periods == 0 || !period.Equal(last) {`, `if period := b.made.Truncate(every); periods == 0 || period.IsZero() || last.IsZero() {`),
	}
}
