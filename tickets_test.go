package flotilla

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/frontend"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// identityFor returns a certificate for the names, and the pool that verifies it: of a server, of a client, or of an authority.
func identityFor(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: devca.NewSerial(), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotAfter: time.Now().AddDate(1, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// resumes makes a connection and reports whether its session was resumed.
func resumes(t *testing.T, client, server *tls.Config) bool {
	t.Helper()
	wire := simnet.New()
	ln, err := wire.Host("server").Listen("tcp", "server:443")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		far, err := ln.Accept()
		if err == nil {
			_, err = tls.Server(far, server).Write([]byte("x"))
			far.Close()
		}
		served <- err
	}()
	near, err := wire.Host("client").Dial(t.Context(), "tcp", "server:443")
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(near, client)
	_, err = io.ReadFull(conn, make([]byte, 1)) // the ticket of TLS 1.3 comes before
	near.Close()
	if serr := <-served; err != nil || serr != nil {
		t.Fatalf("client: %v; server: %v", err, serr)
	}
	return conn.ConnectionState().DidResume
}

// ticketServers returns a server configuration for each node, all with one certificate, and a client's.
func ticketServers(t *testing.T, nodes []*Node) (servers []*tls.Config, client *tls.Config) {
	t.Helper()
	cert, pool := identityFor(t, "a.test", "b.test")
	for _, n := range nodes {
		cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
		n.tickets.Bind(cfg, func(string) bool { return false })
		servers = append(servers, cfg)
	}
	return servers, &tls.Config{RootCAs: pool, ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(10)}
}

// awaitTickets waits until every node has keys that ok is true for.
func awaitTickets(t *testing.T, nodes []*Node, ok func(*state.TicketKeys) bool) {
	t.Helper()
	for _, n := range nodes {
		if _, err := n.store.Wait(t.Context(), func(s *state.State) bool { return s.Tickets != nil && ok(s.Tickets) }); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait() // what follows from it has been done
}

func hasCurrent(k *state.TicketKeys) bool { return k.Current != nil }

// A client that goes round the nodes makes one full handshake, across rotations and a leader's death; one more with a node that is cut off, and one after
// a drop.
func TestTicketsAcrossNodes(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				nodes := trio(t, net, func(c *Config) { c.TLS.TicketRotation = time.Minute })
				awaitTickets(t, nodes, hasCurrent)
				servers, client := ticketServers(t, nodes)
				client.MaxVersion = version
				full := 0
				round := func(times int) {
					t.Helper()
					for i := range 3 * times {
						if !resumes(t, client, servers[i%3]) {
							full++
						}
					}
				}
				round(5)
				first := nodes[0].store.State().Tickets
				for range 4 {
					now := nodes[0].store.State().Tickets.Index
					awaitTickets(t, nodes, func(k *state.TicketKeys) bool { return k.Index > now })
					round(1)
				}
				if k := nodes[0].store.State().Tickets; len(k.Previous) != state.PreviousTickets || slices.ContainsFunc(k.Previous, func(p []byte) bool { return bytes.Equal(p, first.Current) }) {
					t.Errorf("after four rotations %d keys are accepted, the first among them or not", len(k.Previous))
				}
				leader, rest := leaderOf(t, nodes)
				leader.Close()
				now := rest[0].store.State().Tickets.Index
				awaitTickets(t, rest, func(k *state.TicketKeys) bool { return k.Index > now }) // the new leader rotates
				round(1)                                                                       // the dead node's memory is that of a node cut off
				if full != 2 {
					t.Errorf("%d full handshakes, want the first, and one with the node that has no lease", full)
				}
				if err := rest[0].DropTickets(t.Context()); err != nil {
					t.Fatal(err)
				}
				awaitTickets(t, rest, hasCurrent)
				full = 0
				for i, s := range servers {
					if nodes[i] != leader && !resumes(t, client, s) {
						full++
					}
				}
				if full != 1 {
					t.Errorf("%d full handshakes after the drop, want 1", full)
				}
			})
		})
	}
}

// A node that is cut off for two rotations gives out tickets all the time that the others accept, and opens those of others when it is back.
func TestTicketsOfANodeThatSlept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, func(c *Config) { c.TLS.TicketRotation = time.Minute })
		awaitTickets(t, nodes, hasCurrent)
		servers, _ := ticketServers(t, nodes)
		leader, rest := leaderOf(t, nodes)
		sleeper := slices.Index(nodes, rest[0])
		net.Isolate(rest[0].self.Name)
		awake := []*Node{leader, rest[1]}
		for range 2 {
			now := leader.store.State().Tickets.Index
			awaitTickets(t, awake, func(k *state.TicketKeys) bool { return k.Index > now })
			_, client := ticketServers(t, nodes)
			client.InsecureSkipVerify = true
			resumes(t, client, servers[sleeper])
			if !resumes(t, client, servers[slices.Index(nodes, leader)]) {
				t.Error("a ticket of the node that sleeps is not accepted")
			}
		}
		net.Heal()
		mustBeReady(t, rest[0])
		now := leader.store.State().Tickets.Index
		awaitTickets(t, nodes, func(k *state.TicketKeys) bool { return k.Index >= now })
		_, client := ticketServers(t, nodes)
		client.InsecureSkipVerify = true
		resumes(t, client, servers[slices.Index(nodes, leader)])
		if !resumes(t, client, servers[sleeper]) {
			t.Error("the node that slept does not accept a ticket of the others")
		}
	})
}

// No node uses a key that another lacks: while one hears nothing the others go without, until it hears again.
func TestTicketsWaitForEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		awaitTickets(t, nodes, hasCurrent)
		leader, rest := leaderOf(t, nodes)
		before := rest[0].store.State().Tickets
		net.Block(leader.self.Name, rest[0].self.Name)
		dropped := make(chan error, 1)
		go func() { dropped <- leader.DropTickets(t.Context()) }()
		awaitTickets(t, []*Node{leader, rest[1]}, func(k *state.TicketKeys) bool { return k.Index > before.Index })
		time.Sleep(leader.timing.Lease / 4) // far more than a round to the two takes, and less than a verdict
		if rest[0].store.State().Tickets != before || rest[0].self.Session(leader.store.State()) == 0 {
			t.Fatal("the node has heard of the drop, or is given up already")
		}
		for _, n := range []*Node{leader, rest[1]} {
			if n.store.State().Tickets.Current != nil {
				t.Errorf("%s uses a key that %s has not got", n.self.Name, rest[0].self.Name)
			}
		}
		net.Unblock(leader.self.Name, rest[0].self.Name)
		if err := <-dropped; err != nil {
			t.Error(err)
		}
		awaitTickets(t, nodes, hasCurrent)
	})
}

// A ticket opens only what it was given for.
func TestTicketBinding(t *testing.T) {
	nodes := []*Node{{tickets: frontend.NewTickets(time.Hour, leasedAlways)}, {tickets: frontend.NewTickets(time.Hour, leasedAlways)}}
	keys := &state.TicketKeys{Index: 1, Next: frontend.NewTicketKey(), Current: frontend.NewTicketKey()}
	for _, n := range nodes {
		n.tickets.Follow(keys)
	}
	clientCert, clients := identityFor(t, "client")
	_, strangers := identityFor(t, "client of another authority")
	mutual := func(auth tls.ClientAuthType, pool *x509.CertPool) func(*tls.Config) {
		return func(c *tls.Config) { c.ClientAuth, c.ClientCAs = auth, pool }
	}
	plain := func(*tls.Config) {}
	checked := func(c *tls.Config) { // not asked when a session is resumed
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
				servers, client := ticketServers(t, nodes)
				tt.first(servers[0])
				tt.second(servers[1])
				if tt.clone {
					servers[0], servers[1] = servers[0].Clone(), servers[1].Clone()
				}
				client.MaxVersion = version
				client.Certificates = []tls.Certificate{clientCert}
				cache := client.ClientSessionCache
				client.ClientSessionCache = oneSession{cache} // whatever the server's name is
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

// oneSession offers the same session to every server, as an attacker would.
type oneSession struct{ tls.ClientSessionCache }

func (c oneSession) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("") }

func (c oneSession) Put(_ string, s *tls.ClientSessionState) { c.ClientSessionCache.Put("", s) }

// What a client has seen for want of a certificate it shall not go on seeing.
func TestTicketsOfProvisionalCertificates(t *testing.T) {
	for _, provisional := range []bool{false, true} {
		n := &Node{tickets: frontend.NewTickets(time.Hour, leasedAlways)}
		servers, client := ticketServers(t, []*Node{n})
		n.tickets.Bind(servers[0], func(string) bool { return provisional })
		resumes(t, client, servers[0])
		if got := resumes(t, client, servers[0]); got == provisional {
			t.Errorf("provisional %v: resumed %v", provisional, got)
		}
	}
}

func TestTicketsDue(t *testing.T) {
	for _, tt := range []struct {
		name         string
		watch, clock time.Duration // since the keys were seen, and since they were made by the clock
		want         bool
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
				ts := frontend.NewTickets(frontend.TicketRotation, leasedAlways)
				k := &state.TicketKeys{Index: 7, Time: time.Now().Add(tt.watch - tt.clock).UnixNano(), Next: frontend.NewTicketKey()}
				ts.Follow(k)
				time.Sleep(tt.watch)
				if got := ts.Due(k, false); got != tt.want {
					t.Errorf("due: %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func FuzzTicketKeys(f *testing.F) {
	var e codec.Encoder
	(&state.TicketKeys{Index: 1, Time: 2, Next: frontend.NewTicketKey(), Current: frontend.NewTicketKey(), Previous: [][]byte{frontend.NewTicketKey()}}).Encode(&e)
	f.Add(e.B)
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := state.DecodeTicketKeys(&codec.Decoder{B: b})
		if err != nil {
			return
		}
		frontend.NewTickets(time.Hour, leasedAlways).Follow(k)
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
