package main

// operatorRows are about what operators are shown.
func operatorRows() []row {
	return []row{
		m("stacks have no arguments", "TestPlainStacks",
			"internal/diagnosis/stacks.go", "plainStacks", `line = line[:i] + "(…)"`, ``),
		m("stacks have no labels", "TestPlainStacks",
			"internal/diagnosis/stacks.go", "plainStacks", `if head, _, labelled := strings.Cut(line, "{"); labelled {`, `if head, _, labelled := strings.Cut(line, "{"); labelled && head == "" {`),
		m("a secret that is known is taken out", "TestText",
			"cmd/flotilla/internal/redact/redact.go", "Known", `text = k.ReplaceAllString(text, Mark)`, `text = k.ReplaceAllString(text, "$0")`),
		m("the archive has no secret of the environment", "TestDebugHasNoSecrets",
			"cmd/flotilla/debug.go", "environment", `case name == "FLOTILLA_SECRETS", name == "FLOTILLA_HEALTH_TOKEN", name == "FLOTILLA_EMAIL":`, `case name == "FLOTILLA_SECRETS":`),
		m("the logs in the archive pass the redactor", "TestDebugHasNoSecrets",
			"cmd/flotilla/internal/bundle/bundle.go", "Lines", `b, err := a.redact.JSON([]byte(line))`, `b, err := []byte(line), error(nil)`).of("./cmd/flotilla"),
		m("the health port asks for its token", "TestHealthToken",
			"health.go", "Health", `open.Handle("/", healthauth.Require(n.cfg.token(), closed))`, `open.Handle("/", healthauth.Require("", closed))`),
		m("only who has the token learns why a node has failed", "TestHealthTokenHidesTheReason",
			"health.go", "Health", `case s.Err != "" && n.cfg.token() != "":`, `case s.Err == "-":`),
		m("the health port is for this machine, unless its address says more", "TestHealthAddr",
			"config.go", "complete", `c.HealthAddr = orLoopback(c.HealthAddr)`, ``),
		m("a Config that is printed has no token", "TestConfigPrintsNoToken",
			"config.go", "Format", `c.HealthToken = "(set)"`, ``),
		m("the whole token is compared", "TestRequire",
			"internal/healthauth/healthauth.go", "Require", `if ok && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {`, `if ok && subtle.ConstantTimeCompare(got[:0], want[:0]) == 1 {`),
		m("the archive has no e-mail address", "TestShowsNoSecrets",
			"cmd/flotilla/internal/redact/redact.go", "rules", "{find: regexp.MustCompile(`[\\w.%+-]*[A-Za-z][\\w.%+-]*@[\\w.-]*\\w\\.[A-Za-z]{2,}(?:/[\\w.%+-]+)?`), replace: Mark, keep: unit},", ``).of("./cmd/flotilla"),
		m("the log that is kept is bounded", "TestJournalIsBounded",
			"internal/diagnosis/journal.go", "Write", `for j.size > maxJournal {`, `for false {`),
		m("the archive's JSON passes the redactor", "TestDebugHasNoSecrets",
			"cmd/flotilla/internal/bundle/bundle.go", "JSON", `b, err = a.redact.JSON(b)`, ``).of("./cmd/flotilla"),
		m("the archive's texts pass the redactor", "TestDebugHasNoSecrets",
			"cmd/flotilla/internal/bundle/bundle.go", "Text", `func (a *Archive) Text(name, text string) error { return a.add(name, []byte(a.redact.Text(text))) }`, `func (a *Archive) Text(name, text string) error { return a.add(name, []byte(text)) }`).of("./cmd/flotilla"),
		m("a check leaves no file behind", "TestNothingIsLeft",
			"cmd/flotilla/internal/preflight/directory.go", "measureSync", `defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()`, `defer func() { err = errors.Join(err, f.Close()) }()`),
		m("a peer with another timing fails the check", "TestCompare",
			"cmd/flotilla/internal/preflight/peers.go", "compare", `case timing != "" && timing != own.Values[membership.TimingSetting]:`, `case timing == "-":`),
	}
}
