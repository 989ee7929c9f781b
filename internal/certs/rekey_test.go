package certs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

var long = flag.Bool("long", false, "go through all cases")

// Two nodes are asked at once, as when the leader changes. Every name has one more order, and never
// no certificate.
func TestRekeyAll(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		names := []string{"a.example", "b.example", "c.example"}
		for range 3 {
			w.open(w.storage, names...)
		}
		time.Sleep(time.Minute)
		w.leak()
		old := testtls.Serial(w.configs[0], "a.example")
		stop := w.watch(2, time.Second, names...)
		ended := make(chan error, 2)
		for _, c := range w.nodes[:2] {
			go func() { ended <- c.Rekey(t.Context(), "17") }()
		}
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		stop()
		w.check("17", names...)
		if n := len(w.ca.Placed("")); n != 6 {
			t.Errorf("%d orders, want one for each name and one more", n)
		}
		if r, _ := w.ca.Revoked(old); !r.ByKey {
			t.Error("the authority does not refuse the old key: another one has signed the revocation")
		}
		want := RekeyProgress{Begun: true, Done: true, Accounts: 1, Certificates: 3, RolledOver: 1, Rekeyed: 3, Revoked: 3}
		if diff := cmp.Diff(want, w.progress("17")); diff != "" {
			t.Errorf("progress (-want +got):\n%s", diff)
		}
		placed := len(w.ca.Placed(""))
		if err := w.nodes[2].Rekey(t.Context(), "17"); err != nil || len(w.ca.Placed("")) != placed {
			t.Errorf("again: %v, %d orders more", err, len(w.ca.Placed(""))-placed)
		}
		if diff := cmp.Diff(RekeyProgress{}, w.progress("18")); diff != "" {
			t.Errorf("progress of another one:\n%s", diff)
		}
		// the next one begins anew
		w.leak()
		w.rekey(w.nodes[2], "18")
		if n := len(w.ca.Placed("")); n != placed+3 {
			t.Errorf("%d orders for the next one", n-placed)
		}
	})
}

// A process dies at any of its writes and requests, before or after they take effect, and another
// node goes on.
func TestRekeyIsResumed(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	step := 1
	if !*long {
		step = 3
		t.Log("every third call; -long goes through all")
	}
	for _, after := range []bool{false, true} {
		for n := 0; ; n += step {
			died := false
			ok := t.Run(fmt.Sprintf("after %v/%d", after, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { died = rekeyDies(t, n, after) })
			})
			if !ok || !died {
				if n < 20 {
					t.Errorf("the process has only %d calls", n)
				}
				break
			}
		}
	}
}

// rekeyDies reports whether the first node died at its nth call.
func rekeyDies(t *testing.T, n int, after bool) bool {
	w := newRekeyWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m := newMortal(w.storage)
	m.die, m.left, m.after = cancel, n, after
	names := []string{"a.example", "b.example"}
	w.wrap = m.transport
	first := w.open(m, names...)
	w.wrap = nil
	time.Sleep(time.Minute)
	second := w.open(w.storage, names...)
	time.Sleep(time.Minute)
	w.leak()
	m.mu.Lock()
	m.armed, m.left = true, n
	m.mu.Unlock()
	stop := w.watch(1, time.Second, names...)
	defer stop()
	err := first.Rekey(ctx, "17")
	if err == nil {
		w.check("17", names...)
		return false
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a run that ends early: %v", err)
	}
	w.configs[0] = nil // dead
	w.rekey(second, "17")
	w.check("17", names...)
	if p := w.progress("17"); !p.Done || p.Certificates < 2 || p.Revoked != p.Certificates || p.RolledOver != p.Accounts {
		t.Errorf("progress: %+v", p)
	}
	return true
}
