package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
)

// A client that asks too often is refused on every instance, and told when to come back. Another
// client is not.
func TestLimited(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		var all []http.Handler
		for _, n := range c.Nodes {
			h, err := limited(n, handler(n), "0.5")
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, h)
		}
		get := func(i int, from string) *httptest.ResponseRecorder {
			r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
			r.RemoteAddr = from
			all[i].ServeHTTP(w, r)
			return w
		}
		for i := range all {
			for get(i, "192.0.2.1:1000").Code == http.StatusOK { // each instance has a slice
			}
		}
		time.Sleep(100 * time.Millisecond)
		for i := range all {
			for get(i, "192.0.2.1:2000").Code == http.StatusOK { // what was left at the leader
			}
		}
		time.Sleep(time.Second)
		for i := range all {
			if w := get(i, "192.0.2.1:3000"); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "2" {
				t.Errorf("n%d answers %d, Retry-After %q", i, w.Code, w.Header().Get("Retry-After"))
			}
			if w := get(i, "192.0.2.2:1000"); w.Code != http.StatusOK {
				t.Errorf("n%d answers another client with %d", i, w.Code)
			}
		}
	})
}

// A rate that is none is refused with the name of its variable.
func TestRates(t *testing.T) {
	node, err := flotilla.Open(t.Context(), flotilla.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	for rate, says := range map[string]string{
		"": "", "0.01": "", "5": "", "1000": "", "0": "Limit.Rate is 0", "-1": "Limit.Rate is -1", "many": `"many" is not a number`,
	} {
		_, err := limited(node, handler(node), rate)
		if (err == nil) != (says == "") || err != nil && (!strings.Contains(err.Error(), says) || !strings.HasPrefix(err.Error(), "API_RATE: ")) {
			t.Errorf("%q: %v, want %q", rate, err, says)
		}
	}
}

func TestClientOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:99":             "192.0.2.1",
		"[::ffff:192.0.2.1]:99":    "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":         "fe80::/64",
		"@":                        "@",
	} {
		if got := clientOf(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}
