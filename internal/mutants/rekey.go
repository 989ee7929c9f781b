package main

// rekeyRows are about the replacement of the keys that a removed machine has known.
func rekeyRows() []row {
	return []row{
		m("a new key of an account is stored before it is used", "TestRekeyIsResumed",
			"internal/certs/rekey/account.go", "freshKey", `if err := w.save(ctx, a.place, &with); err != nil {`, `if err := error(nil); err != nil {`).of("./internal/certs"),
		m("after an interruption the authority says which key it knows", "TestRekeyIsResumed",
			"internal/certs/rekey/account.go", "account", `known, bad := knows(ctx, client, fresh)`, `known, bad := false, error(nil)`).of("./internal/certs"),
		m("an account that was replaced is closed", "TestRekeyAccounts",
			"internal/certs/rekey/account.go", "keep", `case text != a.Old && !lost:`, `case false:`).of("./internal/certs"),
		m("a key that an earlier re-keying was about to give is replaced", "TestRekeyTwice",
			"internal/certs/rekey/account.go", "freshKey", `if err == nil && slices.Contains(a.Given, string(stored)) {`, `if err == nil && len(a.Given) > 99 {`).of("./internal/certs"),
		m("a certificate with the old key replaces nothing", "TestRekeyAll",
			"internal/certs/rekey/certificate.go", "otherKey", `if w.known[hashOf(leaf.RawSubjectPublicKeyInfo)] || w.Clocks.Now().After(leaf.NotAfter.Add(clocks.Tolerance)) {`, `if w.Clocks.Now().After(leaf.NotAfter.Add(clocks.Tolerance)) {`).of("./internal/certs"),
		m("a certificate is revoked when all nodes serve another one", "TestRekeyRevokesLast",
			"internal/certs/rekey/certificate.go", "retire", `if left := time.Until(j.since.Add(pause)); left > 0 {`, `if left := time.Until(j.since.Add(pause / 100)); left > 0 {`).of("./internal/certs"),
		m("only the certificate with the old key is deleted", "TestRekeyAll",
			"internal/certs/rekey/certificate.go", "remove", `if leaf, err := decodeLeaf(text); err != nil || hashOf(leaf.RawSubjectPublicKeyInfo) != c.SPKI {`, `if _, err := decodeLeaf(text); err != nil {`).of("./internal/certs"),
		m("a name has time to be declared", "TestRekeyNames",
			"internal/certs/rekey/certificate.go", "withdraw", `if left := time.Until(j.unwanted.Add(unwantedIn)); left > 0 && !w.PerNode {`, `if left := time.Until(j.unwanted); left > 0 && !w.PerNode {`).of("./internal/certs"),
		m("copies of old keys are deleted", "TestRekeyCopies",
			"internal/certs/rekey/work.go", "finish", `if err := w.forgetKeys(ctx); err != nil {`, `if err := error(nil); err != nil {`).of("./internal/certs"),
		m("the list of what has ended is deleted after an interruption", "TestRekeyIsResumed",
			"internal/certs/rekey/plan.go", "unfinished", `r.tidy(ctx, id)`, ``).of("./internal/certs"),
		m("what has not ended is not swept", "TestRekeyIsSwept",
			"internal/certs/rekey/rekey.go", "Sweep", `if r.load(ctx, planPlace(path.Base(dir)), &p) != nil || p.Ended.IsZero() {`, `if r.load(ctx, planPlace(path.Base(dir)), &p) != nil {`).of("./internal/certs"),
		m("a certificate that was revoked before is revoked", "TestRekeyRevocations",
			"internal/certs/rekey/authority.go", "unlessRevoked", `if p.Type == acme.ProblemTypeAlreadyRevoked {`, `if p.Status == 0 {`).of("./internal/certs"),
		m("a node that serves nothing deletes nothing", "TestRekeyServesNothing",
			"internal/certs/rekey.go", "newRekeyer", `return "", errServesNothing`, ``),
		m("an old key is not used again", "TestRekeyReusedKeys",
			"internal/certs/order.go", "order", `if a.fresh && config.ReusePrivateKeys {`, `if false {`),
		m("the root of the cluster's own authority is replaced once", "TestRekeyOwnAuthority",
			"internal/certs/devca/devca.go", "Replace", `if errors.Is(err, fs.ErrNotExist) || err == nil && !old(root.Raw) {`, `if errors.Is(err, fs.ErrNotExist) || err == nil && root == nil {`).of("./internal/certs"),
		m("a limit of revocations holds up no orders", "TestRevocationsAreLimitedAlone",
			"internal/certs/backoff/authority.go", "heed", `case q.revokes && res.StatusCode != http.StatusServiceUnavailable:`, `case false:`).of("./internal/certs"),
	}
}
