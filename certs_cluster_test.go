package flotilla

import (
	"crypto/tls"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// sameSerial returns the serial number of the certificate that all nodes serve for name. The test
// fails if they differ, or if it is old.
func sameSerial(t *testing.T, nodes []*Node, name, old string) string {
	t.Helper()
	serial := ""
	for i, n := range nodes {
		cfg, err := n.TLSConfig(name)
		if err != nil {
			t.Fatal(err)
		}
		got := testtls.Serial(cfg, name)
		if got == old || i > 0 && got != serial {
			t.Errorf("%s: node %s shows %q, another %q; before %q", name, n.self.Name, got, serial, old)
		}
		serial = got
	}
	return serial
}

// On real nodes the replicated locks share and limit the orders, and the state machine notifies of
// what is stored and deleted.
func TestClusterSharesCertificates(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const names = 25
		var placed stubca.Orders
		configs := make(map[string]*certmagic.Config)
		nodes := trio(t, simnet.New(), func(c *Config) {
			c.TLS.Configure = func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
				placed.Configure(cfg, i)
				configs[c.Name] = cfg
			}
		})
		serveNames(t, nodes, stubca.Names("real", names)...)
		time.Sleep(time.Minute)
		synctest.Wait()
		placed.Check(t, names)
		for _, name := range stubca.Names("real", names) {
			sameSerial(t, nodes, name, "")
		}

		old := sameSerial(t, nodes, "real0.example", "")
		if err := configs[nodes[1].self.Name].RenewCertSync(t.Context(), "real0.example", true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		old = sameSerial(t, nodes, "real0.example", old)

		site := certmagic.StorageKeys.CertsSitePrefix(keyspace.DevIssuer, "real0.example")
		if err := nodes[2].Storage().Delete(t.Context(), site); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		sameSerial(t, nodes, "real0.example", old)
		placed.Check(t, names+2)
	})
}

// Once any node has shown the first certificate of a name, none shows a self-signed one, although
// some nodes have it before others.
func TestFirstCertificateIsEverywhereAtOnce(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const name = "first.example"
		net := simnet.New()
		answer, answers := stubca.Barrier()
		nodes := trio(t, net, func(c *Config) {
			c.TLS.Configure = func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				cfg.Issuers = []certmagic.Issuer{&stubca.Issuer{Issuer: devca.Issuer{Storage: cfg.Storage}, Fails: func() error { return answer(t.Context()) }}}
			}
		})
		net.SetLatency(20 * time.Millisecond)
		leader, others := leaderOf(t, nodes)
		nodes = append([]*Node{leader}, others...) // the leader has it before all others
		var configs []*tls.Config
		for _, n := range nodes {
			cfg, err := n.TLSConfig(name)
			if err != nil {
				t.Fatal(err)
			}
			configs = append(configs, cfg)
		}
		time.Sleep(time.Second)
		marker := testtls.Serial(configs[0], name) // the serial number of the self-signed one
		if s := nodes[0].Status().Certificates[0]; !s.SelfSigned || marker == "" {
			t.Fatalf("before there is a certificate: %q, %+v", marker, s)
		}
		for i, cfg := range configs {
			if got := testtls.Serial(cfg, name); got != marker {
				t.Fatalf("node %d shows %q before there is a certificate, want the self-signed %q", i, got, marker)
			}
		}
		answers()
		for {
			time.Sleep(time.Millisecond)
			var seen []string // what the nodes show, one after the other
			for _, cfg := range configs {
				seen = append(seen, testtls.Serial(cfg, name))
			}
			if first := slices.IndexFunc(seen, func(s string) bool { return s != marker }); first >= 0 {
				if slices.Contains(seen[first:], marker) {
					t.Errorf("shown one after the other: %q; self-signed is %q", seen, marker)
				}
				return
			}
		}
	})
}
