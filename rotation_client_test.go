package flotilla_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// joinTime is how long a node may take to join a cluster whose secret was replaced, and be ready.
const joinTime = time.Second

// clients make connections to all nodes of a cluster in turn, in pairs: one with a full handshake,
// and one that offers the session of the pair before.
type clients struct {
	pairs, resumed int
	failures       []string
	serials        map[string]bool // of the certificates that were shown
}

// run makes a pair every 10 ms until ctx ends.
func (c *clients) run(ctx context.Context, servers []*tls.Config) {
	c.serials = make(map[string]bool)
	shown := func(s tls.ConnectionState) error {
		c.serials[s.PeerCertificates[0].SerialNumber.Text(16)] = true
		return nil
	}
	full := &tls.Config{ServerName: "a.test", InsecureSkipVerify: true, VerifyConnection: shown}
	again := full.Clone()
	again.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for ; ctx.Err() == nil; c.pairs++ {
		for _, client := range []*tls.Config{full, again} {
			resumed, err := testtls.Resumes(context.WithoutCancel(ctx), client, servers[c.pairs%len(servers)])
			if err != nil {
				c.failures = append(c.failures, err.Error())
			} else if resumed {
				c.resumed++
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Clients connect to every node while the secret, the data key and the ticket keys are replaced. No
// handshake fails, all see one certificate, and sessions resume but for once after the ticket keys.
// A node with the new secret alone then joins within a second.
func TestClientsWhileAllIsReplaced(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		r := newSecrets(t, 3)
		configure := func(i int, c *flotilla.Config) {
			r.configure(i, c)
			c.TLS.Private = true
		}
		r.Cluster = clustertest.New(t, 3, configure)
		r.Settle()
		serve := func(n *flotilla.Node) *tls.Config {
			cfg, err := n.TLSConfig("a.test")
			if err != nil {
				t.Fatal(err)
			}
			return cfg
		}
		var servers []*tls.Config
		for _, n := range r.Nodes {
			servers = append(servers, serve(n))
		}
		time.Sleep(10 * time.Second) // for the certificate, and the first ticket key
		for i := range r.Nodes {
			r.give(i, r.old, r.next)
		}
		for _, test := range []struct {
			request remote.RotateRequest
			full    int // connections that cannot resume: the first, and one after the tickets are dropped
		}{
			{rotateSecret(t, r.old, r.next), 1},
			{remote.RotateRequest{What: remote.RotateData}, 1},
			{remote.RotateRequest{What: remote.RotateTickets}, 2},
		} {
			var c clients
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				c.run(ctx, servers)
			}()
			time.Sleep(time.Second)
			began := time.Now()
			bound, cancel := context.WithTimeout(t.Context(), time.Minute)
			if p := drive(bound, t, r.client(r.old, r.next), test.request); !p.Done {
				t.Fatal(p.Doing)
			}
			cancel()
			took := time.Since(began)
			time.Sleep(time.Second)
			stop()
			<-ended
			t.Logf("replacing %s took %v: %d pairs of connections, %d failed, %d resumed", test.request.What, took, c.pairs, len(c.failures), c.resumed)
			if len(c.failures) > 0 {
				t.Errorf("replacing %s: %d of %d handshakes failed, such as: %s", test.request.What, len(c.failures), 2*c.pairs, c.failures[0])
			}
			if full := c.pairs - c.resumed; full > test.full {
				t.Errorf("replacing %s: %d connections did not resume, want %d", test.request.What, full, test.full)
			}
			if len(c.serials) != 1 {
				t.Errorf("replacing %s: certificates %v were shown", test.request.What, c.serials)
			}
		}
		r.give(3, r.next)
		began := time.Now()
		i := r.Add(configure)
		ctx, cancel := context.WithTimeout(t.Context(), joinTime)
		defer cancel()
		if err := r.Nodes[i].Ready(ctx); err != nil {
			t.Fatalf("a node with the new secret alone, after %v: %v", joinTime, err)
		}
		ready := time.Since(began)
		if serial := testtls.Serial(serve(r.Nodes[i]), "a.test"); serial != testtls.Serial(servers[0], "a.test") {
			t.Errorf("it shows the certificate %s", serial)
		}
		t.Logf("a node with the new secret alone is ready after %v", ready)
	})
}
