package certs

import (
	"log/slog"
	"strings"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
)

// newCertmagic returns certmagic's configuration over the storage, with its cache, and what the
// program has set for names on demand. A *errs.ConfigError names the field of TLS that is wrong.
func newCertmagic(cfg *Config) (*certmagic.Config, *certmagic.Cache, *certmagic.OnDemandConfig, error) {
	t := &cfg.Policy
	if err := t.Check(); err != nil {
		return nil, nil, nil, err
	}
	zl := slogbridge.NewZap(cfg.Log)
	var config *certmagic.Config
	// The cache must get this very configuration, or renewals go to certmagic's default storage
	// (certmagic issue 292).
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil },
		Logger:           zl.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return withoutLoop{c} })),
	})
	cache.Stop() // its loop only: see renewals
	config = certmagic.New(cache, certmagic.Config{
		Storage:   cfg.Storage,
		Issuers:   []certmagic.Issuer{},
		KeySource: certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		// it would write and delete 10 KiB for each order, to find out what Ready knows
		DisableStorageCheck: true,
		OCSP:                certmagic.OCSPConfig{DisableStapling: true},
		Logger:              zl,
	})
	// The program may use certmagic too, and its certmagic.Default would come in here.
	config.OnDemand, config.OnEvent, config.ShouldEmitFunc, config.LocalCache = nil, nil, nil, nil

	var issuer *certmagic.ACMEIssuer
	if cfg.Development && t.CA == "" {
		config.Issuers = []certmagic.Issuer{&devca.Issuer{Storage: cfg.Storage}}
	} else {
		ca := t.CA
		if ca == "" {
			ca = certmagic.LetsEncryptProductionCA
		}
		issuer = certmagic.NewACMEIssuer(config, certmagic.ACMEIssuer{
			CA: ca, Email: t.Email, Agreed: true, TrustedRoots: t.TrustedRoots, Logger: zl,
		})
		issuer.TestCA = ""
		config.Issuers = []certmagic.Issuer{issuer}
	}
	if t.Configure != nil {
		t.Configure(config, issuer)
	}
	if err := checkConfigured(config, cfg.Storage); err != nil {
		return nil, nil, nil, err
	}
	for _, i := range config.Issuers {
		if i, ok := i.(*certmagic.ACMEIssuer); ok {
			// A retry at another CA would store its token where other nodes do not look (certmagic
			// issue 334).
			i.TestCA = ""
			if i.Email == "" {
				// certmagic trims it. Without it, certmagic asks on the terminal, or takes the address
				// of another account.
				i.Email = " "
			}
		}
	}
	demand := config.OnDemand
	config.OnDemand = nil
	// certmagic would ask while it loads a certificate, without a deadline
	config.OCSP.DisableStapling = true
	return config, cache, demand, nil
}

// withoutLoop leaves out the lines about the loop that renewals replaces.
type withoutLoop struct{ zapcore.Core }

// With implements zapcore.Core.
func (c withoutLoop) With(fields []zapcore.Field) zapcore.Core {
	return withoutLoop{c.Core.With(fields)}
}

// Check implements zapcore.Core.
func (c withoutLoop) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if strings.HasSuffix(e.Message, "background certificate maintenance") {
		return to
	}
	return c.Core.Check(e, to)
}

// checkConfigured returns what TLS.Configure has broken.
func checkConfigured(config *certmagic.Config, storage certmagic.Storage) error {
	bad := func(reason string) error { return &errs.ConfigError{Field: "TLS.Configure", Reason: reason} }
	switch {
	case config.Storage != storage:
		return bad("it must leave Storage as it is: certificates and challenges would not reach the other nodes")
	case len(config.Issuers) == 0:
		return bad("it must leave at least one issuer")
	case config.OnDemand != nil && config.OnDemand.DecisionFunc == nil:
		return bad("OnDemand needs a DecisionFunc: anybody could have certificates ordered otherwise; set one that accepts the names of your users")
	case config.Logger == nil:
		return bad("it must leave a Logger; zap.NewNop is silent")
	}
	return nil
}

// eachACME calls f with each ACME issuer, and logs those for which it returns false.
func eachACME(config *certmagic.Config, log *slog.Logger, f func(*certmagic.ACMEIssuer) bool) {
	for _, i := range config.Issuers {
		if i, ok := i.(*certmagic.ACMEIssuer); ok && !f(i) {
			log.Warn("this version of certmagic does not show the pauses that an authority demands", "issuer", i.IssuerKey())
		}
	}
}
