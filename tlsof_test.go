package flotilla

// tlsOf returns what a Config has for certificates that are to be had so.
func tlsOf(p certPolicy) TLS {
	return TLS{Email: p.Email, CA: p.CA, Private: p.Private, TrustedRoots: p.TrustedRoots, Configure: p.Configure}
}
