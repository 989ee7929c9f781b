package acmetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

// One node renews a certificate long before it is due. All nodes serve the new one at once, and no
// handshake fails.
func TestRenewalIsServedByAll(t *testing.T) {
	t.Parallel()
	const atOnce = time.Second // for the fastest renewal: the machine may be busy during another
	c := startCluster(t, options{})
	stop := watch(t.Context(), c.nodes, home)
	best := waitLimit
	for _, renewer := range c.nodes {
		if _, err := renewer.ask(t.Context(), question{Ask: askRenew, Name: home}); err != nil {
			t.Fatal(err)
		}
		renewed := time.Now()
		stored, err := renewer.ask(t.Context(), question{Ask: askBundle, Name: home})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range c.nodes {
			if _, err := m.serves(t.Context(), home, serial(stored.Serial)); err != nil {
				t.Fatalf("renewed by %s: %v", renewer.Name(), err)
			}
		}
		best = min(best, time.Since(renewed))
	}
	if best > atOnce {
		t.Errorf("a renewed certificate was served by all nodes after %s, want %s", best, atOnce)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// The authority asks by ARI (RFC 9773) for the renewal of a certificate at once. The nodes renew it
// once. That is not obvious: each node reads ARI on its own, and certmagic stores it by name. A
// node that still has the first certificate would take the second one's ARI for that of the first.
// It would then write the first one's ARI beside the second certificate, and renew that too.
func TestARIRenewsOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, options{})
	first, err := c.nodes[0].shake(t.Context(), home)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.nodes[1:] {
		if _, err := m.serves(t.Context(), home, serial(first.SerialNumber.Text(16))); err != nil {
			t.Fatal(err)
		}
	}
	before := c.ca.issued.Load()
	if err := c.ca.renewNow(first.SerialNumber); err != nil {
		t.Fatal(err)
	}

	// One node reads ARI, and renews. If that fails, for a reason that does not matter here, it
	// tries again after a minute.
	var looked time.Time
	renewed := func(ctx context.Context) error {
		if time.Since(looked) > 2*ariRetryAfter {
			looked = time.Now()
			if _, err := c.nodes[0].ask(ctx, question{Ask: askMaintain}); err != nil {
				return err
			}
		}
		leaf, err := c.nodes[0].shake(ctx, home)
		if err == nil && leaf.Equal(first) {
			err = errors.New("it has not been renewed")
		}
		return err
	}
	if err := process.Await(t.Context(), waitLimit, renewed); err != nil {
		t.Log(err)
		if err := process.Await(t.Context(), waitLimit, renewed); err != nil {
			t.Fatal(err)
		}
	}
	// The others read ARI, at once and again when their copy is too old. At the end all nodes do.
	// If the renewing node came in between it would repair the metadata of the second certificate.
	look := c.nodes[1:]
	for round := range 4 {
		if round == 3 {
			look = c.nodes
		}
		for _, m := range look {
			if _, err := m.ask(t.Context(), question{Ask: askMaintain}); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(ariRetryAfter + ariRetryAfter/5)
	}
	if n := c.ca.issued.Load() - before; n != 1 {
		t.Errorf("%d certificates were issued, want 1", n)
	}
	if err := c.agree(t.Context(), home); err != nil {
		t.Error(err)
	}
	if leaf, err := c.nodes[0].shake(t.Context(), home); err != nil || leaf.Equal(first) {
		t.Errorf("the first certificate is served again (%v)", err)
	}
}
