package certs

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/quarantine"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// damages are ways to damage a stored certificate. Each changes one record of damaged.example;
// other is another name's.
func damages(storage *memStorage, stem, other string) map[string]func() (key string, value []byte) {
	of := func(key string) []byte { return slices.Clone(storage.data[key]) }
	return map[string]func() (string, []byte){
		"crt: garbage":             func() (string, []byte) { return stem + ".crt", []byte("garbage") },
		"crt: empty":               func() (string, []byte) { return stem + ".crt", nil },
		"crt: cut short":           func() (string, []byte) { v := of(stem + ".crt"); return stem + ".crt", v[:len(v)/4] },
		"crt: another one's":       func() (string, []byte) { return stem + ".crt", of(other + ".crt") },
		"crt: a key":               func() (string, []byte) { return stem + ".crt", of(stem + ".key") },
		"key: garbage":             func() (string, []byte) { return stem + ".key", []byte("\x00\x01garbage") },
		"key: another one's":       func() (string, []byte) { return stem + ".key", of(other + ".key") },
		"key: sealed by who knows": func() (string, []byte) { return stem + ".key", bytes.Repeat([]byte{0xfe, 7}, 200) },
		"json: garbage":            func() (string, []byte) { return stem + ".json", []byte("{") },
		"json: empty":              func() (string, []byte) { return stem + ".json", nil },
	}
}

// A certificate that cannot be read counts as missing: one node orders another, and the old one is
// quarantined. Other names are not affected, and what is in memory is served meanwhile.
func TestDamagedCertificateIsReplaced(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	const name, fine = "damaged.example", "fine.example"
	for _, boots := range []bool{true, false} {
		for what := range damages(newMemStorage(), "", "") {
			t.Run(map[bool]string{true: "at a start/", false: "while nodes run/"}[boots]+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca := testca.New(t, testca.Config{Trusting: true})
					storage := newMemStorage()
					nodes := stubbed(t, ca, 3, storage, nil, nil)
					startAll(t, nodes, name, fine)
					time.Sleep(20 * time.Second)
					synctest.Wait()
					stem := func(name string) string {
						return strings.TrimSuffix(certmagic.StorageKeys.SiteCert(acmeIssuer(nodes[0]).IssuerKey(), name), ".crt")
					}
					if boots {
						for _, c := range nodes {
							c.Close()
						}
						storage.notify()
					}
					key, value := damages(storage, stem(name), stem(fine))[what]()
					put(t, storage, map[string]string{key: string(value)})
					var out bytes.Buffer
					if boots {
						nodes = nil
						for range 3 {
							c, err := openCerts(policyOf(ca, nil), storage, false, always, testlog.To(&out, slog.LevelError), offline)
							if err != nil {
								t.Fatal(err)
							}
							t.Cleanup(c.Close)
							nodes = append(nodes, c)
						}
						storage.notify(nodes...)
					}
					cfg, err := nodes[0].TLSConfig(name, fine)
					if err != nil {
						t.Fatal(err)
					}
					startAll(t, nodes, name, fine)
					time.Sleep(time.Second)
					if s := nodes[0].Status()[0]; s.Err == nil || !strings.Contains(s.Err.Error(), "cannot be read") {
						t.Errorf("status meanwhile: %+v", s)
					}
					if got := testtls.Serial(cfg, fine); got == "" {
						t.Error("the other name is not served")
					}
					if got := testtls.Serial(cfg, name); !boots && got == "" || got == nodes[0].handshakes.provisional.marker(name).Text(16) {
						t.Errorf("shows %q while what is stored cannot be read", got)
					}
					time.Sleep(30 * time.Second)
					synctest.Wait()
					for _, c := range nodes {
						settle(t, c)
					}
					if n := len(ca.Placed(name)); n != 2 {
						t.Errorf("%d orders, want 2", n)
					}
					if n := len(ca.Placed(fine)); n != 1 {
						t.Errorf("%d orders of the other name", n)
					}
					if got, want := testtls.Serial(cfg, name), inStorageOf(t, nodes[0], name); got != want {
						t.Errorf("shows %q, want %q", got, want)
					}
					copies := 0
					synctest.Wait()
					for k, v := range storage.data {
						if strings.HasPrefix(k, quarantine.Place) && strings.HasSuffix(k, key) {
							copies++
							if !bytes.Equal(v, value) {
								t.Errorf("%q is quarantined of %q", v, value)
							}
						}
					}
					if copies != 1 {
						t.Errorf("%d copies are quarantined, want 1", copies)
					}
					if boots && !strings.Contains(out.String(), "a certificate in the storage cannot be read") {
						t.Errorf("logged:\n%s", out.String())
					}
				})
			})
		}
	}
}

// inStorageOf returns the serial number of the certificate for name that the storage of a node has.
func inStorageOf(t *testing.T, c *Certs, name string) string {
	t.Helper()
	x, err := c.loader.config.CacheManagedCertificate(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return x.Leaf.SerialNumber.Text(16)
}

// A certificate that is being written part by part is not damaged.
func TestHalfWrittenIsNotDamaged(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, testca.Config{Trusting: true})
		storage, source := newMemStorage(), newMemStorage()
		nodes, other := stubbed(t, ca, 2, storage, nil, nil), stubbed(t, ca, 1, source, nil, nil)[0]
		startAll(t, []*Certs{other}, "a.example")
		startAll(t, nodes, "a.example")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		stem := strings.TrimSuffix(certmagic.StorageKeys.SiteCert(acmeIssuer(nodes[0]).IssuerKey(), "a.example"), ".crt")
		for _, part := range []string{".key", ".crt", ".json"} {
			put(t, storage, map[string]string{stem + part: string(source.data[stem+part])})
			time.Sleep(quarantine.Settle * 3 / 4)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(ca.Placed("")); n != 2 {
			t.Errorf("%d orders, want those of before", n)
		}
		for _, c := range nodes {
			settle(t, c)
			if got, want := c.Status()[0].Serial, other.Status()[0].Serial; got != want {
				t.Errorf("serves %q, want what was imported, %q", got, want)
			}
		}
	})
}

// A renewal is written part by part, too. That does not count as damage, and all nodes serve it
// soon.
func TestRenewalIsNotDamage(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, testca.Config{Trusting: true})
		storage, source := newMemStorage(), newMemStorage()
		nodes, other := stubbed(t, ca, 2, storage, nil, nil), stubbed(t, ca, 1, source, nil, nil)[0]
		startAll(t, []*Certs{other}, "a.example")
		startAll(t, nodes, "a.example")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		want := other.Status()[0].Serial
		stem := strings.TrimSuffix(certmagic.StorageKeys.SiteCert(acmeIssuer(nodes[0]).IssuerKey(), "a.example"), ".crt")
		for _, part := range []string{".key", ".crt", ".json"} {
			put(t, storage, map[string]string{stem + part: string(source.data[stem+part])})
			for range 10 {
				time.Sleep(10 * time.Millisecond)
				for _, c := range nodes {
					if s := c.Status()[0]; s.Err != nil {
						t.Fatalf("status: %+v", s)
					}
				}
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for _, c := range nodes {
			if s := c.Status()[0]; s.Err != nil || s.Serial != want {
				t.Errorf("a second later: %+v, want the serial %s", s, want)
			}
		}
	})
}

// An account that cannot be read is opened anew, by one node.
func TestDamagedAccountIsReplaced(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	// without an e-mail address, and with one
	for _, part := range []string{"default.json", "default.key", "me.json", "me.key"} {
		for _, value := range []string{"garbage", "", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"} {
			t.Run(part+" "+value[:min(8, len(value))], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca := testca.New(t, testca.Config{Trusting: true})
					storage := newMemStorage()
					nodes := stubbed(t, ca, 3, storage, func(cfg *certmagic.Config) {
						if strings.HasPrefix(part, "me.") {
							cfg.Issuers[0].(*certmagic.ACMEIssuer).Email = "me@a.example"
						}
					}, nil)
					startAll(t, nodes, "first.example")
					time.Sleep(20 * time.Second)
					synctest.Wait()
					damaged := ""
					for key := range storage.data {
						if strings.Contains(key, "/users/") && strings.HasSuffix(key, "/"+part) {
							damaged = key
						}
					}
					put(t, storage, map[string]string{damaged: value})
					startAll(t, nodes, "second.example", "third.example")
					time.Sleep(time.Minute)
					synctest.Wait()
					for _, c := range nodes {
						settle(t, c)
					}
					if ca.Accounts() != 2 {
						t.Errorf("%d accounts, want 2", ca.Accounts())
					}
				})
			})
		}
	}
}
