package stubca

import "github.com/caddyserver/certmagic"

// Configurer is an authority in memory, such as a *testca.Authority.
type Configurer interface {
	Configure(*certmagic.Config, *certmagic.ACMEIssuer)
}

// Configure returns a TLS.Configure that sends orders to ca, without renewal information. more, if
// not nil, configures the rest.
func Configure(ca Configurer, more func(*certmagic.Config)) func(*certmagic.Config, *certmagic.ACMEIssuer) {
	return func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
		ca.Configure(cfg, i)
		cfg.DisableARI = true
		if more != nil {
			more(cfg)
		}
	}
}
