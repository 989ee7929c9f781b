package acmetest

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A certificate that one node renewed, long before it was due, is served by all nodes at once, and no handshake fails meanwhile.
func TestRenewalIsServedByAll(t *testing.T) {
	t.Parallel()
	const atOnce = time.Second // for the fastest of the renewals: the machine may do something else during one
	f := startFleet(t, options{})
	stop := watch(t.Context(), f.nodes, home)
	best := patience
	for _, renewer := range f.nodes {
		if _, err := renewer.ask(t.Context(), question{Ask: askRenew, Name: home}); err != nil {
			t.Fatal(err)
		}
		renewed := time.Now()
		stored, err := renewer.ask(t.Context(), question{Ask: askBundle, Name: home})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range f.nodes {
			if _, err := m.serves(t.Context(), home, serial(stored.Serial)); err != nil {
				t.Fatalf("renewed by %s: %v", renewer.settings.Name, err)
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

// The authority wants a certificate renewed at once and says so by ARI (RFC 9773). Each node learns of it on its own, and certmagic
// keeps by name what is about one certificate: nodes that go on with the first certificate take the second one's ARI for its own,
// then write the first one's beside the second, and renew that too. It must be renewed once.
func TestARIRenewsOnce(t *testing.T) {
	t.Parallel()
	f := startFleet(t, options{})
	first, err := f.nodes[0].shake(t.Context(), home)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range f.nodes[1:] {
		if _, err := m.serves(t.Context(), home, serial(first.SerialNumber.Text(16))); err != nil {
			t.Fatal(err)
		}
	}
	before := f.ca.issued.Load()
	if err := f.ca.renewNow(first.SerialNumber); err != nil {
		t.Fatal(err)
	}

	// One node learns of it, and renews. Should it fail, which is not what is looked at here, it tries again after a minute.
	var looked time.Time
	renewed := func(ctx context.Context) error {
		if time.Since(looked) > 2*ariRetryAfter {
			looked = time.Now()
			if _, err := f.nodes[0].ask(ctx, question{Ask: askMaintain}); err != nil {
				return err
			}
		}
		leaf, err := f.nodes[0].shake(ctx, home)
		if err == nil && leaf.Equal(first) {
			err = errors.New("it has not been renewed")
		}
		return err
	}
	if err := await(t.Context(), renewed); err != nil {
		t.Log(err)
		if err := await(t.Context(), renewed); err != nil {
			t.Fatal(err)
		}
	}
	// The others look, each at once and again when what it has learnt is too old; in the end all do. The one that renewed would
	// mend the second certificate's metadata if it came in between.
	look := f.nodes[1:]
	for round := range 4 {
		if round == 3 {
			look = f.nodes
		}
		for _, m := range look {
			if _, err := m.ask(t.Context(), question{Ask: askMaintain}); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(ariRetryAfter + ariRetryAfter/5)
	}
	if n := f.ca.issued.Load() - before; n != 1 {
		t.Errorf("%d certificates were issued in place of one", n)
	}
	if err := f.agree(t.Context(), home); err != nil {
		t.Error(err)
	}
	if leaf, err := f.nodes[0].shake(t.Context(), home); err != nil || leaf.Equal(first) {
		t.Errorf("the first certificate is served again (%v)", err)
	}
}
