package certs

import (
	"net/http"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
)

// stubbed returns the certificates of n nodes that order at ca. They do not listen, and names lead
// nowhere.
func stubbed(t *testing.T, ca *testca.Authority, n int, storage *memStorage, more func(*certmagic.Config), configure func(*Certs)) []*Certs {
	t.Helper()
	var nodes []*Certs
	for range n {
		c, err := openCerts(policyOf(ca, more), storage, false, always, nil, offline)
		if err != nil {
			t.Fatal(err)
		}
		if configure != nil {
			configure(c)
		}
		t.Cleanup(c.Close)
		nodes = append(nodes, c)
	}
	storage.notify(nodes...)
	return nodes
}

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func acmeIssuer(c *Certs) *certmagic.ACMEIssuer {
	return c.loader.config.Issuers[0].(*certmagic.ACMEIssuer)
}

// policyOf returns the policy of a node that orders at ca. more, if not nil, configures the rest.
func policyOf(ca *testca.Authority, more func(*certmagic.Config)) Policy {
	return Policy{CA: ca.URL(), Configure: stubca.Configure(ca, more)}
}
