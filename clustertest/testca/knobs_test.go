package testca_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A limited operation is answered with the time that is left, and requests that come earlier are
// counted.
func TestLimit(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca, c := trusting(t)
		ca.Limit(testca.NewOrder, time.Hour)
		for early := range 3 {
			_, err := c.order(t, "a.example")
			wantProblem(t, err, "rateLimited", "too many requests")
			if n := ca.Early(testca.NewOrder); n != early {
				t.Errorf("%d requests came early, want %d", n, early)
			}
		}
		time.Sleep(time.Hour)
		if _, err := c.order(t, "a.example"); err != nil {
			t.Error(err)
		}
		all := ca.Placed("a.example")
		if len(all) != 4 || !all[0].Refused || all[3].Refused || all[3].Certificate == nil {
			t.Errorf("orders: %+v", all)
		}
		if n := ca.Early(testca.Revoke); n != 0 {
			t.Errorf("%d requests of another operation came early", n)
		}
	})
}

func TestRefuse(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca, c := trusting(t)
		var heard []testca.Request
		ca.Refuse(func(r testca.Request) *testca.Refusal {
			if heard = append(heard, r); r.Op == testca.Finalize {
				return testca.Problem(403, "caa", "not by me", "")
			}
			return nil
		})
		_, err := c.order(t, "a.example", "b.example")
		wantProblem(t, err, "caa", "not by me")
		if len(heard) != 2 || heard[0].Op != testca.NewOrder || len(heard[0].Names) != 2 || ca.Asked(testca.Finalize) != 1 {
			t.Errorf("it was asked for %+v", heard)
		}
		ca.Refuse(nil)
		if _, err := c.order(t, "a.example"); err != nil {
			t.Error(err)
		}
	})
}

func TestUnreachable(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca, c := trusting(t)
		ca.SetUnreachable(true)
		if _, err := c.order(t, "a.example"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("an order: %v", err)
		}
		if n := len(ca.Placed("")); n != 0 {
			t.Errorf("%d orders", n)
		}
		ca.SetUnreachable(false)
		if _, err := c.order(t, "a.example"); err != nil {
			t.Error(err)
		}
	})
}

// Validations take time, certificates live longer or shorter, and the authority's clock is another
// one.
func TestTimes(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t)
		ca := testca.New(t, testca.Config{Dial: w.Dial, Challenges: []string{testca.HTTP01}})
		c := newCustomer(t, ca, newKey(t), map[string]acmez.Solver{testca.HTTP01: w})
		ca.SetDelay(10 * time.Second)
		ca.SetLifetime(time.Hour)
		ca.SetClock(-24 * time.Hour)
		began := time.Now()
		leaf, err := c.order(t, "a.example")
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d < 10*time.Second || d > 15*time.Second {
			t.Errorf("the order took %v", d)
		}
		if d := time.Until(leaf.NotAfter); d > -22*time.Hour || d < -24*time.Hour {
			t.Errorf("the certificate ends in %v", d)
		}
	})
}

// Renewal information is what the test wants, and an order may replace a certificate once.
func TestRenewalInfo(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca, c := trusting(t)
		leaf, err := c.order(t, "a.example")
		if err != nil {
			t.Fatal(err)
		}
		look := func(want time.Time) {
			t.Helper()
			info, err := c.GetRenewalInfo(t.Context(), leaf)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.SuggestedWindow; got.Start.After(want) || got.End.Before(want) || info.RetryAfter == nil {
				t.Errorf("from %v to %v, want %v; look again at %v", got.Start, got.End, want, info.RetryAfter)
			}
		}
		look(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3))
		early := time.Now().Add(24 * time.Hour)
		ca.SetWindow(leaf.SerialNumber.Text(16), early.Add(-time.Hour), early.Add(time.Hour))
		look(early)
		ca.Revoke(leaf.SerialNumber.Text(16), acme.ReasonSuperseded)
		look(time.Now().Add(-45 * time.Minute))
		if r, ok := ca.Revoked(leaf.SerialNumber.Text(16)); !ok || r.Reason != acme.ReasonSuperseded || r.ByKey {
			t.Errorf("revoked: %v, %+v", ok, r)
		}

		replace := func() error {
			_, err := c.ObtainCertificate(t.Context(), c.replacing(t, leaf, "a.example"))
			return err
		}
		for range 2 { // acmez orders without it when it is refused
			if err := replace(); err != nil {
				t.Fatal(err)
			}
		}
		var said []bool
		id, err := acme.ARIUniqueIdentifier(leaf)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range ca.Placed("")[1:] {
			said = append(said, o.Replaces == id && !o.Refused)
		}
		if len(said) != 3 || !said[0] || said[1] || said[2] || !ca.Placed("")[2].Refused {
			t.Errorf("orders: %+v", ca.Placed(""))
		}
	})
}

// An authority that somebody has prepared was asked nothing, and certmagic can order at it.
func TestPrepareRenewals(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	ca := testca.New(t, testca.Config{Trusting: true})
	if err := ca.PrepareRenewals(t.Context(), "a@a.example"); err != nil {
		t.Fatal(err)
	}
	if ca.Accounts() != 0 || len(ca.Placed("")) != 0 || ca.Asked(testca.NewOrder) != 0 {
		t.Errorf("%d accounts, %d orders", ca.Accounts(), len(ca.Placed("")))
	}
	// The limit exists, so no goroutine stays in the bubble when an order needs it.
	synctest.Test(t, func(t *testing.T) {
		cfg, issuer := manager(t, ca, "a@a.example")
		if err := cfg.ObtainCertSync(t.Context(), "a.example"); err != nil {
			t.Fatal(err)
		}
		if n := len(ca.Issued("a.example")); n != 1 || issuer.CA != ca.URL() {
			t.Errorf("%d certificates", n)
		}
		time.Sleep(time.Minute) // until the goroutines of FileStorage's locks have ended
	})
}

func TestConfigureWithoutIssuer(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it does not panic")
		}
	}()
	testca.New(t, testca.Config{}).Configure(new(certmagic.Config), nil)
}
