package main

// limitRows are about limits of a rate: the bound holds, and memory is bounded.
func limitRows() []row {
	return []row{
		m("a node allows no more than a slice before the leader has accepted it", "TestAllowN",
			"internal/limits/debts.go", "take", `if ok = d.owed+n <= max(slice, n); ok {`, `if ok = d.owed+n <= 2*max(slice, n); ok {`),
		m("only what the leader has accepted is settled", "TestOverTheLimit",
			"internal/limits/debts.go", "settle", `if d.owed -= float64(answers[i].Accepted); d.owed < nothing {`, `if d.owed = 0; d.owed < nothing {`),
		m("a node without a leader takes its part of the rate", "TestWithoutLeader",
			"internal/limits/debts.go", "take", `d.lessen(limit.Rate/float64(servers), alone, now())`, `d.lessen(limit.Rate, alone, now())`),
		m("time with a leader lessens no debt", "TestBoundUnderFaults",
			"internal/limits/debts.go", "lessen", `d.owed -= rate * (now - max(d.seen, since)).Seconds()`, `d.owed -= rate * (now - d.seen).Seconds()`),
		m("the debts of a node are bounded", "TestMemory",
			"internal/limits/debts.go", "add", `if len(s.all) >= perShard {`, `if false {`),
		m("a large debt is not the one that is forgiven", "TestMemory",
			"internal/limits/debts.go", "add", `if seen == 0 || d.owed < owed {`, `if seen == 0 || d.owed > owed {`),
		m("the leader accepts no more than its bucket has", "TestBucket",
			"internal/limits/ledger.go", "accept", `accepted := min(float64(owed), whole, share)`, `accepted := min(float64(owed), max(whole, share))`),
		m("no node takes what others wait for", "TestBucket",
			"internal/limits/ledger.go", "accept", `share := max(1, math.Floor(b.tokens/float64(1+len(b.short))))`, `share := max(1, math.Floor(b.tokens))`),
		m("a bucket holds no more than the burst, and is forgotten when it is full", "TestAtRest",
			"internal/limits/ledger.go", "fill", `b.tokens = min(float64(b.limit.Burst), b.tokens+b.limit.Rate*(now-b.at).Seconds())`, `b.tokens += b.limit.Rate * (now - b.at).Seconds()`),
		m("the buckets of a leader are bounded", "TestMemory",
			"internal/limits/ledger.go", "bucket", `if len(l.buckets) >= maxKeys {`, `if false {`),
		m("the buckets of a term are not those of the next one", "TestTerms",
			"internal/limits/ledger.go", "answer", `if term > l.term {`, `if l.buckets == nil {`),
		m("only a leader with a lease accepts", "TestServe",
			"internal/limits/limits.go", "Serve", `if term == 0 {`, `if false {`),
		m("a leader that stood still accepts nothing", "TestServe",
			"internal/limits/limits.go", "Serve", `if x.cfg.Term() != term {`, `if false {`),
		m("a limit asks the leader only when every member knows the question", "TestKVLimiterOfAnOlderCluster",
			"records.go", "newLimits", `if n.store.State().Version < limitVersion {`, `if false {`),
	}
}
