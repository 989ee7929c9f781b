package flotilla

import (
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// A node that is to form a cluster alone does not while a peer is silent: that may belong to one.
func TestAloneBesideASilentPeer(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		host := net.Host("x")
		net.Isolate("x")
		n, err := Open(t.Context(), Config{
			Dir: t.TempDir(), Name: "x", Secrets: []Secret{NewSecret()}, Peers: Static("y:7373"),
			PeerListen: host.Listen, PeerDial: host.Dial, Logger: testlog.None(),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		time.Sleep(time.Minute)
		if id := n.members.Ident.Identity(); id.Cluster != "" || id.Formation != nil {
			t.Fatalf("it has formed the cluster %q, or is about to: %+v", id.Cluster, id.Formation)
		}
		net.Heal() // there is nobody
		mustBeReady(t, n)
	})
}
