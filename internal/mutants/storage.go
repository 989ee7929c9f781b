package main

// storageRows are about what is written and read.
func storageRows() []row {
	return []row{
		m("a node without a lease does not say that something is not there", "TestWithoutQuorum",
			"storage.go", "absent", `if current {`, `if current || s != nil {`),
		m("a read asks the clock for the lease, not a flag", "TestReadAfterStandstill",
			"storage.go", "read", `if n.keeper.valid() {`, `if n.ownSession(n.fsm.state()) != 0 {`),
		m("a lock that was lost is not renewed from memory", "TestRenewLockLease",
			"storage.go", "RenewLockLease", `if lock != nil && s.n.keeper.usable(ref.session) {`, `if lock != nil {`),
		m("a key has its limit", "TestCleanKey",
			"storage.go", "cleanKey", `if len(key) > MaxName {`, `if false {`),
		m("a key has no zero byte, which separates directories", "TestCleanKey",
			"storage.go", "cleanKey", `if strings.IndexByte(key, 0) >= 0 {`, `if false {`),
		m("nothing is stored in the way of certificates", "TestMisplacedKeys",
			"storage.go", "storeKey", `err = misplaced(clean)`, ``),
		m("a key does not lead out of the storage", "TestMisplacedKeys",
			"storage.go", "cleanKey", `case clean == ".." || strings.HasPrefix(clean, "../"):`, `case false:`),
		m("a key has one form", "TestCleanKey",
			"storage.go", "isClean", `if part == "" || part == "." || part == ".." {`, `if part == "" {`),

		m("metadata of a replaced certificate are dropped", "TestMetadataOfTheOldCertificateAreDropped",
			"bundle.go", "storeMeta", `if isAbout(meta, r.value) {`, `if true {`),
		m("records of one entry have their limit together", "TestPutLimits",
			"bundle.go", "putCommand", `if len(c.value) > maxPut {`, `if false {`),

		m("numbers of commands are not counted anew for an old session", "TestNumbersComeOnce",
			"propose.go", "begin", `if session < p.session {`, `if false {`),
		m("a proposal is its sender's", "TestForgedProposals",
			"propose.go", "serveApply", `if c.node != peer || c.session != q.session || c.seq != q.seq {`, `if c.session != q.session || c.seq != q.seq {`),
		m("a proposal is what it says that it is", "TestForgedProposals",
			"propose.go", "serveApply", `if c.node != peer || c.session != q.session || c.seq != q.seq {`, `if c.node != peer {`),
		m("an entry that cannot be opened is not proposed", "TestMalformedProposal",
			"propose.go", "serveApply", `return nil, fmt.Errorf("%w: %w", codec.ErrMalformed, err)`, `continue`),
		m("a write waits for every node that reads", "TestLinearizableUnderFaults",
			"propose.go", "lead", `return l.acks.wait(ctx, index)`, `return nil`),

		m("a write waits for each session that has not applied it", "TestLateGreetingOfEarlierProcess",
			"ack.go", "gone", `return a.n.book.lost(id) >= ses.number || a.n.book.hasEnded(ses.boot) || a.n.port.HungUp(id)`, `return true`),
		m("a write does not wait for a process whose successor has its address", "TestCatchingUpHoldsNobodyUp",
			"ack.go", "gone", `return a.n.book.lost(id) >= ses.number || a.n.book.hasEnded(ses.boot) || a.n.port.HungUp(id)`, `return a.n.book.lost(id) >= ses.number || a.n.port.HungUp(id)`),
	}
}
