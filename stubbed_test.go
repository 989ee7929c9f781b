package flotilla

import (
	"net/http"
	"testing"

	"github.com/caddyserver/certmagic"
)

// stubbed returns the certificates of n nodes that order at the authority. They listen nowhere, and no name leads anywhere.
func stubbed(t *testing.T, ca *stubCA, n int, storage *memStorage, more func(*certmagic.Config), configure func(*certs)) []*certs {
	t.Helper()
	var nodes []*certs
	for range n {
		c, err := openCerts(policyOf(ca, more), storage, false, always, nil)
		if err != nil {
			t.Fatal(err)
		}
		offline(c)
		if configure != nil {
			configure(c)
		}
		t.Cleanup(c.close)
		nodes = append(nodes, c)
	}
	storage.tell(nodes...)
	return nodes
}

// offline keeps a node from the network.
func offline(c *certs) {
	world := &internet{}
	c.lookup, c.dial = world.lookup, world.dial
	over := make(chan struct{})
	close(over)
	c.decoy = &decoy{ln: deaf{}, done: over}
}

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func acmeIssuer(c *certs) *certmagic.ACMEIssuer { return c.config.Issuers[0].(*certmagic.ACMEIssuer) }

// limitedByCertmagic returns the URL of an authority for which certmagic's own limit of orders is there already, outside of any bubble:
// it has a goroutine that never ends.
func limitedByCertmagic(t *testing.T) string {
	t.Helper()
	ca := newStubCA(t)
	c := stubbed(t, ca, 1, newMemStorage(), nil, nil)[0]
	if err := c.config.ObtainCertSync(t.Context(), "first.example"); err != nil {
		t.Fatal(err)
	}
	return ca.url
}

// policyOf returns the policy of a node that orders at the authority. What else is to be configured comes after.
func policyOf(ca *stubCA, more func(*certmagic.Config)) certPolicy {
	return certPolicy{CA: ca.url, Configure: ca.configure(more)}
}
