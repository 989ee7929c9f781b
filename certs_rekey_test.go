package flotilla

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// On real nodes the keys of all certificates are replaced. The node that does it is stopped on the
// way, and another one goes on.
func TestClusterIsRekeyed(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, testca.Config{Trusting: true})
		nodes := trio(t, simnet.New(), func(c *Config) { stubTLS(c, ca, nil) })
		names := stubca.Names("real", 12)
		serveNames(t, nodes, names...)
		time.Sleep(time.Minute)
		old := make(map[string]string)
		for _, name := range names {
			old[name] = sameSerial(t, nodes, name, "")
		}
		account := accountKeyOf(t, nodes[0])
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := nodes[0].certs.Rekey(ctx, "17"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a run that was stopped: %v", err)
		}
		if err := nodes[0].Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := nodes[1].certs.Rekey(t.Context(), "17"); err != nil {
			t.Error(err)
		}
		p, err := nodes[2].certs.RekeyProgress(t.Context(), "17")
		if err != nil || !p.Done || p.Rekeyed != len(names) || p.Revoked != len(names) || p.RolledOver != 1 {
			t.Errorf("progress: %+v, %v", p, err)
		}
		for _, name := range names {
			serial := sameSerial(t, nodes[1:], name, old[name])
			if r, ok := ca.Revoked(old[name]); !ok || r.Reason != 1 || !r.ByKey {
				t.Errorf("%s: the old certificate is revoked: %v, %+v", name, ok, r)
			}
			if _, ok := ca.Revoked(serial); ok {
				t.Errorf("%s: the new certificate is revoked", name)
			}
		}
		if n := len(ca.Placed("")); n != 2*len(names) {
			t.Errorf("%d orders, want two for each name", n)
		}
		if got := accountKeyOf(t, nodes[2]); got == account || ca.Live() != 1 {
			t.Errorf("%d accounts live, and the key is another: %v", ca.Live(), got != account)
		}
	})
}

// accountKeyOf returns the key of the only account.
func accountKeyOf(t *testing.T, n *Node) string {
	t.Helper()
	dir := fmt.Sprintf("acme/%s/users/default/default.key", certmagic.StorageKeys.Safe(n.certs.Issuers()[0]))
	key, err := n.Storage().Load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}
