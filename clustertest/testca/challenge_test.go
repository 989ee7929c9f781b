package testca_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// acmez proves names and addresses by each challenge, and gets certificates for them.
func TestChallenges(t *testing.T) {
	synctest.Parallel(t)
	for _, tc := range []struct {
		challenge string
		names     []string
	}{
		{testca.HTTP01, []string{"a.example"}},
		{testca.HTTP01, []string{"192.0.2.7"}},
		{testca.HTTP01, []string{"2001:db8::7"}},
		{testca.TLSALPN01, []string{"a.example"}},
		{testca.TLSALPN01, []string{"192.0.2.7"}},
		{testca.TLSALPN01, []string{"2001:db8::7"}},
		{testca.DNS01, []string{"a.example"}},
		{testca.DNS01, []string{"a.example", "*.a.example", "b.example"}},
	} {
		t.Run(tc.challenge+" "+strings.Join(tc.names, ","), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, zone := newWeb(t), new(testca.Zone)
				var dialed []string
				ca := testca.New(t, testca.Config{
					Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
						dialed = append(dialed, addr)
						return w.Dial(ctx, network, addr)
					},
					TXT: zone.TXT, Challenges: []string{tc.challenge}, Lifetime: 24 * time.Hour,
				})
				c := newCustomer(t, ca, newKey(t), map[string]acmez.Solver{testca.HTTP01: w, testca.TLSALPN01: w, testca.DNS01: zone})
				leaf, err := c.order(t, tc.names...)
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range tc.names {
					verified := strings.Replace(name, "*", "any", 1)
					if _, err := leaf.Verify(x509.VerifyOptions{DNSName: verified, Roots: ca.Roots()}); err != nil {
						t.Error(err)
					}
				}
				if d := time.Until(leaf.NotAfter); d < 23*time.Hour || d > 24*time.Hour {
					t.Errorf("it is valid for %v", d)
				}
				all := strings.Join(tc.names, ",")
				if n := len(ca.Placed(all)); n != 1 || ca.Placed("")[0].Refused {
					t.Errorf("orders: %+v", ca.Placed(""))
				}
				if got := ca.Issued(all); len(got) != 1 || !got[0].Equal(leaf) {
					t.Errorf("%d were signed", len(got))
				}
				var proved []string
				for _, v := range ca.Validations() {
					if v.Err != nil || v.Challenge != tc.challenge {
						t.Errorf("validated: %+v", v)
					}
					proved = append(proved, v.Name)
				}
				if len(proved) != len(tc.names) || len(tc.names) == 1 && proved[0] != tc.names[0] {
					t.Errorf("validated: %q", proved)
				}
				port := map[string]string{testca.HTTP01: "80", testca.TLSALPN01: "443"}[tc.challenge]
				if want := net.JoinHostPort(tc.names[0], port); port != "" && !cmp.Equal(dialed, []string{want}) {
					t.Errorf("it dialed %q, want %q", dialed, want)
				}
			})
		})
	}
}

// A proof that is wrong is refused, with a problem that says why.
func TestProofsThatAreWrong(t *testing.T) {
	synctest.Parallel(t)
	another := func(c acme.Challenge) acme.Challenge { c.KeyAuthorization += "x"; return c }
	elsewhere := func(c acme.Challenge) acme.Challenge { c.Token, c.Identifier.Value = "x", "b.example"; return c }
	refusing := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody is there") }
	silent := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	failing := func(context.Context, string) ([]string, error) { return nil, errors.New("no server answers") }
	for _, tc := range []struct {
		name, challenge string
		answer          func(acme.Challenge) acme.Challenge
		dial            func(ctx context.Context, network, addr string) (net.Conn, error)
		txt             func(context.Context, string) ([]string, error)
		kind, want      string
	}{
		{"another proof", testca.HTTP01, another, nil, nil, "unauthorized", "instead of the key authorization"},
		{"no such path", testca.HTTP01, elsewhere, nil, nil, "unauthorized", "404"},
		{"nobody", testca.HTTP01, nil, refusing, nil, "connection", "nobody is there"},
		{"silence", testca.HTTP01, nil, silent, nil, "connection", "deadline"},
		{"another proof", testca.TLSALPN01, another, nil, nil, "unauthorized", "proves something else"},
		{"another name", testca.TLSALPN01, elsewhere, nil, nil, "unauthorized", "for other names"},
		{"nobody", testca.TLSALPN01, nil, refusing, nil, "connection", "nobody is there"},
		{"no record", testca.DNS01, nil, nil, new(testca.Zone).TXT, "unauthorized", "none of the 0 TXT records"},
		{"no DNS", testca.DNS01, nil, nil, failing, "dns", "no server answers"},
		{"no way to look", testca.DNS01, nil, nil, nil, "dns", "has no TXT"},
	} {
		t.Run(tc.challenge+" "+tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWeb(t)
				w.answer = tc.answer
				dial := tc.dial
				if dial == nil {
					dial = w.Dial
				}
				ca := testca.New(t, testca.Config{Dial: dial, TXT: tc.txt, Challenges: []string{tc.challenge}})
				c := newCustomer(t, ca, newKey(t), map[string]acmez.Solver{tc.challenge: w})
				_, err := c.order(t, "a.example")
				wantProblem(t, err, tc.kind, tc.want)
				if all := ca.Validations(); len(all) == 0 || all[0].Err == nil {
					t.Errorf("validations: %+v", all)
				}
				if n := len(ca.Issued("")); n != 0 {
					t.Errorf("%d certificates were signed", n)
				}
			})
		})
	}
}

// A wildcard can only be proved by DNS-01, and an address not by it.
func TestNamesWithoutChallenge(t *testing.T) {
	for name, challenges := range map[string][]string{
		"*.a.example": {testca.HTTP01, testca.TLSALPN01},
		"192.0.2.7":   {testca.DNS01},
	} {
		t.Run(name, func(t *testing.T) {
			ca := testca.New(t, testca.Config{Challenges: challenges})
			_, err := newCustomer(t, ca, newKey(t), nil).order(t, name)
			wantProblem(t, err, "rejectedIdentifier", "no challenge is offered")
		})
	}
}

// The authority writes names in capitals: see the package comment for why.
func TestCapitals(t *testing.T) {
	synctest.Parallel(t)
	for _, challenge := range []string{testca.HTTP01, testca.TLSALPN01} {
		t.Run(challenge, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWeb(t)
				ca := testca.New(t, testca.Config{Dial: w.Dial, Challenges: []string{challenge}})
				c := newCustomer(t, ca, newKey(t), map[string]acmez.Solver{challenge: w})
				if _, err := c.order(t, "a.example"); err != nil {
					t.Fatal(err)
				}
				if got := w.asked(); got != "A.EXAMPLE" {
					t.Errorf("it asked for %q", got)
				}
			})
		})
	}
}
