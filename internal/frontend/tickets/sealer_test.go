package tickets

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// always is for a node that knows the cluster's newest keys.
func always() bool { return true }

// identityFor is testtls.Identity.
func identityFor(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	cert, pool, err := testtls.Identity(names...)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pool
}

// resumes is testtls.Resumes.
func resumes(t *testing.T, client, server *tls.Config) bool {
	t.Helper()
	resumed, err := testtls.Resumes(t.Context(), client, server)
	if err != nil {
		t.Fatal(err)
	}
	return resumed
}

// ticketServers returns a server configuration for each sealer, all with one certificate, and a
// client's.
func ticketServers(t *testing.T, sealers ...*Sealer) (servers []*tls.Config, client *tls.Config) {
	t.Helper()
	cert, pool := identityFor(t, "a.test", "b.test")
	for _, s := range sealers {
		cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
		s.Bind(cfg, func(string) bool { return false })
		servers = append(servers, cfg)
	}
	return servers, &tls.Config{RootCAs: pool, ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(10)}
}

// A ticket is good only for the server name and the demands that it was given for.
func TestTicketBinding(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	sealers := []*Sealer{New(time.Hour, always), New(time.Hour, always)}
	keys := &state.TicketKeys{Index: 1, Next: NewKey(), Current: NewKey()}
	for _, s := range sealers {
		s.Follow(keys)
	}
	clientCert, clients := identityFor(t, "client")
	_, strangers := identityFor(t, "client of another authority")
	mutual := func(auth tls.ClientAuthType, pool *x509.CertPool) func(*tls.Config) {
		return func(c *tls.Config) { c.ClientAuth, c.ClientCAs = auth, pool }
	}
	plain := func(*tls.Config) {}
	checked := func(c *tls.Config) { // by a function that is not called when a session is resumed
		c.ClientAuth, c.VerifyPeerCertificate = tls.RequireAnyClientCert, func([][]byte, [][]*x509.Certificate) error { return nil }
	}
	again := x509.NewCertPool() // equal, and not the same
	again.AddCert(clientCert.Leaf)
	for _, tt := range []struct {
		name          string
		first, second func(*tls.Config)
		clone         bool
		server        string
		want          bool
	}{
		{name: "the same", first: plain, second: plain, want: true},
		{name: "clones", first: plain, second: plain, clone: true, want: true},
		{name: "another server name", first: plain, second: plain, server: "b.test"},
		{name: "the same authority", first: mutual(tls.RequireAndVerifyClientCert, clients), second: mutual(tls.RequireAndVerifyClientCert, again), want: true},
		{name: "less is demanded", first: mutual(tls.RequireAndVerifyClientCert, clients), second: mutual(tls.VerifyClientCertIfGiven, clients)},
		{name: "nothing is demanded", first: mutual(tls.RequireAndVerifyClientCert, clients), second: plain},
		{name: "more is demanded", first: mutual(tls.RequestClientCert, nil), second: mutual(tls.RequireAnyClientCert, nil)},
		{name: "a check of the user's", first: checked, second: checked, want: true},
		{name: "a check that the first did not make", first: mutual(tls.RequireAnyClientCert, nil), second: checked},
		{name: "another authority", first: mutual(tls.RequestClientCert, clients), second: mutual(tls.RequestClientCert, strangers)},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tt.name+"/"+tls.VersionName(version), func(t *testing.T) {
				servers, client := ticketServers(t, sealers...)
				tt.first(servers[0])
				tt.second(servers[1])
				if tt.clone {
					servers[0], servers[1] = servers[0].Clone(), servers[1].Clone()
				}
				client.MaxVersion = version
				client.Certificates = []tls.Certificate{clientCert}
				cache := client.ClientSessionCache
				// for every server name
				client.ClientSessionCache = testtls.OneSession{ClientSessionCache: cache}
				resumes(t, client, servers[0])
				if tt.server != "" {
					client.ServerName = tt.server
				}
				if got := resumes(t, client, servers[1]); got != tt.want {
					t.Errorf("resumed: %v, want %v", got, tt.want)
				}
			})
		}
	}
}

// A session with a self-signed certificate is not resumed, so that the client sees the real
// certificate as soon as there is one.
func TestTicketsOfProvisionalCertificates(t *testing.T) {
	for _, provisional := range []bool{false, true} {
		s := New(time.Hour, always)
		servers, client := ticketServers(t, s)
		s.Bind(servers[0], func(string) bool { return provisional })
		resumes(t, client, servers[0])
		if got := resumes(t, client, servers[0]); got == provisional {
			t.Errorf("provisional %v: resumed %v", provisional, got)
		}
	}
}

// Keys are due after a period, by this process or by the clock, but a wrong clock does not rotate
// them all the time.
func TestTicketsDue(t *testing.T) {
	for _, tt := range []struct {
		name string
		// since this process has had the keys, and since they were made by the clock
		here, clock time.Duration
		want        bool
	}{
		{"young", 11 * time.Hour, 11 * time.Hour, false},
		{"old", 12 * time.Hour, 12 * time.Hour, true},
		{"seen for so long, and made in the future", 12 * time.Hour, -time.Hour, true},
		{"old, seen for a while since the start", time.Hour, 13 * time.Hour, true},
		{"old by a clock that may be wrong", 59 * time.Minute, 10000 * time.Hour, false},
		{"made in the future", time.Hour, -10000 * time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Rotation, always)
				k := &state.TicketKeys{Index: 7, Time: time.Now().Add(tt.here - tt.clock).UnixNano(), Next: NewKey()}
				s.Follow(k)
				time.Sleep(tt.here)
				if got := s.Due(k, false); got != tt.want {
					t.Errorf("due: %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// Keys that can be decoded can be followed, and encoded again.
func FuzzTicketKeys(f *testing.F) {
	var e codec.Encoder
	(&state.TicketKeys{Index: 1, Time: 2, Next: NewKey(), Current: NewKey(), Previous: [][]byte{NewKey()}}).Encode(&e)
	f.Add(e.B)
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := state.DecodeTicketKeys(&codec.Decoder{B: b})
		if err != nil {
			return
		}
		New(time.Hour, always).Follow(k)
		var e codec.Encoder
		k.Encode(&e)
		again, err := state.DecodeTicketKeys(&codec.Decoder{B: e.B})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(k, again, cmp.AllowUnexported(state.TicketKeys{})); diff != "" {
			t.Error(diff)
		}
	})
}
