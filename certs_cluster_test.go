package flotilla

import (
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// sameSerial fails the test unless all nodes serve the same certificate for name, and another than old, which it returns.
func sameSerial(t *testing.T, nodes []*Node, name, old string) string {
	t.Helper()
	serial := ""
	for i, n := range nodes {
		cfg, err := n.TLSConfig(name)
		if err != nil {
			t.Fatal(err)
		}
		got := shown(cfg, name)
		if got == old || i > 0 && got != serial {
			t.Errorf("%s: node %s shows %q, another %q; before %q", name, n.name, got, serial, old)
		}
		serial = got
	}
	return serial
}

// Real nodes: orders are shared and limited by the replicated locks, and the state machine tells of what is stored and deleted.
func TestClusterSharesCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const names = 25
		var book orderBook
		nodes := trio(t, simnet.New(), func(c *Config) {
			c.TLS.Configure = func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				cfg.Issuers = []certmagic.Issuer{&faultyIssuer{devIssuer{storage: cfg.Storage}, book.place}}
			}
		})
		for _, n := range nodes {
			startAll(t, []*certs{n.certs}, someNames("real", names)...)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		book.check(t, names)
		for _, name := range someNames("real", names) {
			sameSerial(t, nodes, name, "")
		}

		old := sameSerial(t, nodes, "real0.example", "")
		if err := nodes[1].certs.config.RenewCertSync(t.Context(), "real0.example", true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		old = sameSerial(t, nodes, "real0.example", old)

		site := certmagic.StorageKeys.CertsSitePrefix(devIssuerKey, "real0.example")
		if err := nodes[2].Storage().Delete(t.Context(), site); err != nil {
			t.Fatal(err)
		}
		time.Sleep(orderSettle + orderJitter + time.Second)
		sameSerial(t, nodes, "real0.example", old)
		book.check(t, names+2)
	})
}
