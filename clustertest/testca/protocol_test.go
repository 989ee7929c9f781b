package testca_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// trusting returns an authority that validates nothing, and a customer of it.
func trusting(t *testing.T) (*testca.Authority, *customer) {
	t.Helper()
	ca := testca.New(t, testca.Config{Trusting: true})
	return ca, newCustomer(t, ca, newKey(t), nil)
}

// Accounts have keys of every kind that ACME demands. They are found again, get other keys, and are
// closed.
func TestAccounts(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for kind, key := range keys(t) {
		t.Run(kind, func(t *testing.T) {
			ca := testca.New(t, testca.Config{Trusting: true})
			c := newCustomer(t, ca, key, nil)
			found, err := c.GetAccount(t.Context(), acme.Account{PrivateKey: key})
			if err != nil || found.Location != c.Location || ca.Accounts() != 1 {
				t.Fatalf("found again: %+v, %v; there are %d", found, err, ca.Accounts())
			}
			if diff := cmp.Diff([]string{"mailto:a@a.example"}, found.Contact); diff != "" {
				t.Errorf("contacts (-want +got):\n%s", diff)
			}
			if _, err := c.order(t, "a.example"); err != nil {
				t.Fatal(err)
			}
			next := newKey(t)
			if c.Account, err = c.AccountKeyRollover(t.Context(), c.Account, next); err != nil {
				t.Fatal(err)
			}
			if ca.Knows(key) || !ca.Knows(next) || ca.Live() != 1 {
				t.Errorf("the former key is known: %v; the new one: %v; %d accounts live", ca.Knows(key), ca.Knows(next), ca.Live())
			}
			if _, err := c.order(t, "b.example"); err != nil {
				t.Errorf("an order with the new key: %v", err)
			}
			c.Status = acme.StatusDeactivated
			if _, err := c.UpdateAccount(t.Context(), c.Account); err != nil {
				t.Fatal(err)
			}
			c.Status = acme.StatusValid
			_, err = c.order(t, "c.example")
			wantProblem(t, err, "unauthorized", "deactivated")
			if ca.Live() != 0 || ca.Accounts() != 1 {
				t.Errorf("%d of %d accounts live", ca.Live(), ca.Accounts())
			}
		})
	}
}

// What an account may not do is refused.
func TestRefusals(t *testing.T) {
	ca, one := trusting(t)
	other := newCustomer(t, ca, newKey(t), nil)
	ctx := t.Context()
	order := func(c *customer, names ...string) acme.Order {
		t.Helper()
		var o acme.Order
		for _, name := range names {
			o.Identifiers = append(o.Identifiers, acme.Identifier{Type: "dns", Value: name})
		}
		o, err := c.NewOrder(ctx, c.Account, o)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	request := func(names ...string) []byte {
		t.Helper()
		csr, err := acmez.NewCSR(newKey(t), names)
		if err != nil {
			t.Fatal(err)
		}
		return csr.Raw
	}
	placed := order(one, "a.example")
	leaf, err := one.order(t, "leaf.example")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := newCustomer(t, testca.New(t, testca.Config{Trusting: true}), newKey(t), nil).order(t, "leaf.example")
	if err != nil {
		t.Fatal(err)
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil {
		t.Fatal(err)
	}
	newOrder := func(c *customer, o acme.Order) error { _, err := c.NewOrder(ctx, c.Account, o); return err }
	names := func(kind string, names ...string) (all []acme.Identifier) {
		for _, name := range names {
			all = append(all, acme.Identifier{Type: kind, Value: name})
		}
		return all
	}
	for _, tc := range []struct {
		name string
		err  func() error
		kind string
		part string
	}{
		{"to see another's order", func() error { _, err := other.GetOrder(ctx, other.Account, placed); return err }, "malformed", "no such order"},
		{"to finalize another's order", func() error {
			_, err := other.FinalizeOrder(ctx, other.Account, placed, request("a.example"))
			return err
		}, "malformed", "no such order"},
		{"to request other names", func() error {
			_, err := one.FinalizeOrder(ctx, one.Account, placed, request("b.example"))
			return err
		}, "badCSR", "names of the order"},
		{"to request nonsense", func() error { _, err := one.FinalizeOrder(ctx, one.Account, placed, []byte("x")); return err }, "badCSR", "the request"},
		{"to request the account's key", func() error {
			csr, err := acmez.NewCSR(one.PrivateKey, []string{"a.example"})
			if err != nil {
				t.Fatal(err)
			}
			_, err = one.FinalizeOrder(ctx, one.Account, placed, csr.Raw)
			return err
		}, "badCSR", "the key of the account"},
		{"to take another's key", func() error { _, err := one.AccountKeyRollover(ctx, one.Account, other.PrivateKey); return err }, "malformed", "in use"},
		{"an order of nothing", func() error { return newOrder(one, acme.Order{}) }, "malformed", "0 names"},
		{"a name twice", func() error { return newOrder(one, acme.Order{Identifiers: names("dns", "a.example", "a.example")}) }, "malformed", "twice"},
		{"a name in capitals", func() error { return newOrder(one, acme.Order{Identifiers: names("dns", "A.example")}) }, "rejectedIdentifier", "neither a domain name"},
		{"an address as a name", func() error { return newOrder(one, acme.Order{Identifiers: names("dns", "192.0.2.1")}) }, "rejectedIdentifier", "neither a domain name"},
		{"a name as an address", func() error { return newOrder(one, acme.Order{Identifiers: names("ip", "a.example")}) }, "rejectedIdentifier", "neither a domain name"},
		{"an e-mail address", func() error { return newOrder(one, acme.Order{Identifiers: names("email", "a@a.example")}) }, "rejectedIdentifier", "no type"},
		{"to replace another's certificate", func() error {
			return newOrder(other, acme.Order{Identifiers: names("dns", "a.example"), Replaces: id})
		}, "malformed", "could be replaced"},
		{"to revoke for a wrong reason", func() error { return one.RevokeCertificate(ctx, one.Account, leaf, nil, 7) }, "badRevocationReason", "no reason 7"},
		{"to revoke with another key", func() error { return one.RevokeCertificate(ctx, one.Account, leaf, newKey(t), 1) }, "unauthorized", "not that of the certificate"},
		{"to revoke another authority's certificate", func() error { return one.RevokeCertificate(ctx, one.Account, foreign, nil, 1) }, "malformed", "no certificate of this authority"},
		{"an account that does not exist", func() error {
			_, err := one.GetAccount(ctx, acme.Account{PrivateKey: newKey(t)})
			return err
		}, "accountDoesNotExist", "with this key"},
	} {
		t.Run(tc.name, func(t *testing.T) { wantProblem(t, tc.err(), tc.kind, tc.part) })
	}
	if n := len(ca.Issued("")); n != 1 {
		t.Errorf("%d certificates were signed, want 1", n)
	}
}

// Only who has ordered a certificate, or has its key, may revoke it.
func TestRevocation(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, testRevocation)
}

func testRevocation(t *testing.T) {
	w := newWeb(t)
	ca := testca.New(t, testca.Config{Dial: w.Dial, Challenges: []string{testca.HTTP01}})
	solvers := map[string]acmez.Solver{testca.HTTP01: w}
	one, other := newCustomer(t, ca, newKey(t), solvers), newCustomer(t, ca, newKey(t), solvers)
	leaf, err := one.order(t, "a.example")
	if err != nil {
		t.Fatal(err)
	}
	serial := leaf.SerialNumber.Text(16)
	wantProblem(t, other.RevokeCertificate(t.Context(), other.Account, leaf, nil, 0), "unauthorized", "has not ordered")
	if _, revoked := ca.Revoked(serial); revoked {
		t.Error("it is revoked after that")
	}
	if err := one.RevokeCertificate(t.Context(), one.Account, leaf, nil, acme.ReasonKeyCompromise); err != nil {
		t.Fatal(err)
	}
	if r, revoked := ca.Revoked(serial); !revoked || r != (testca.Revocation{Reason: 1}) {
		t.Errorf("revoked: %v, %+v", revoked, r)
	}
	wantProblem(t, one.RevokeCertificate(t.Context(), one.Account, leaf, nil, 0), "alreadyRevoked", "before")
	info, err := one.GetRenewalInfo(t.Context(), leaf)
	if err != nil || !info.SuggestedWindow.End.Before(ca.Now()) {
		t.Errorf("it should be renewed from %v to %v (%v)", info.SuggestedWindow.Start, info.SuggestedWindow.End, err)
	}
}

// tampering is a transport that changes what a client sends, if it is set to.
type tampering struct {
	next   http.RoundTripper
	change func(r *http.Request, jws map[string]string)
	last   []byte // the body that was sent last
}

func (x *tampering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if x.change != nil {
			var jws map[string]string
			if err := json.Unmarshal(text, &jws); err != nil {
				return nil, err
			}
			x.change(r, jws)
			if text, err = json.Marshal(jws); err != nil {
				return nil, err
			}
		}
		x.last, r.Body = text, io.NopCloser(bytes.NewReader(text))
	}
	return x.next.RoundTrip(r)
}

// What was not signed like this is refused.
func TestTamperedRequests(t *testing.T) {
	ca, c := trusting(t)
	between := &tampering{next: ca}
	c.Client.Client.HTTPClient = &http.Client{Transport: between}
	for _, tc := range []struct {
		name   string
		change func(r *http.Request, jws map[string]string)
		kind   string
		part   string
	}{
		{"signature", func(_ *http.Request, jws map[string]string) { jws["signature"] = jws["signature"][4:] + "AAAA" }, "malformed", "signature is wrong"},
		{"payload", func(_ *http.Request, jws map[string]string) { jws["payload"] = "e30" }, "malformed", "signature is wrong"},
		{"URL", func(r *http.Request, _ map[string]string) { r.URL.Path = "/keychange" }, "unauthorized", "signed URL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			between.change = tc.change
			_, err := c.order(t, "a.example")
			wantProblem(t, err, tc.kind, tc.part)
		})
	}
	between.change = nil
	if _, err := c.order(t, "a.example"); err != nil {
		t.Fatalf("without a change: %v", err)
	}
	t.Run("a second time", func(t *testing.T) {
		again, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://ca.example/cert/1", bytes.NewReader(between.last))
		if err != nil {
			t.Fatal(err)
		}
		res, err := ca.RoundTrip(again)
		if err != nil {
			t.Fatal(err)
		}
		var p acme.Problem
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil || p.Type != acme.ProblemTypeBadNonce || res.Header.Get("Replay-Nonce") == "" {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// An authority also serves clients over a real port.
func TestOverTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	ca := testca.New(t, testca.Config{Trusting: true})
	srv := httptest.NewTLSServer(ca)
	defer srv.Close()
	c := &customer{Client: &acmez.Client{Client: &acme.Client{Directory: srv.URL + "/directory", HTTPClient: srv.Client()}}}
	var err error
	if c.Account, err = c.NewAccount(t.Context(), acme.Account{PrivateKey: newKey(t)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.order(t, "a.example"); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]int{"/directory": 200, "/nowhere": 404, "/order": 405, "/renewalinfo/x": 404} {
		res, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, res.Status, want)
		}
	}
}
