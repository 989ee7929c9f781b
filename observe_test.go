package flotilla_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/metric"
)

// scrape returns the value of a sample on a node's health port, and whether it is there.
func scrape(t *testing.T, n *flotilla.Node, sample string) (value string, ok bool) {
	t.Helper()
	rec := httptest.NewRecorder()
	n.Health().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(rec.Body.String()) {
		if value, ok = strings.CutPrefix(strings.TrimSpace(line), sample+" "); ok {
			return value, true
		}
	}
	return "", false
}

func wantSamples(t *testing.T, n *flotilla.Node, want map[string]string) {
	t.Helper()
	for sample, value := range want {
		if got, ok := scrape(t, n, sample); !ok || got != value {
			t.Errorf("%s is %q, %v; it should be %q", sample, got, ok, value)
		}
	}
}

// The metrics of a leader and of a follower say what the nodes are, and follow what happens.
func TestMetricsOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		time.Sleep(time.Second) // for some renewals, which measure the way
		leader, follower := 0, 0
		for i := range 3 {
			if s := c.Nodes[i].Status(); s.Leader == s.ID {
				leader = i
			} else {
				follower = i
			}
		}
		same := map[string]string{
			"flotilla_ready": "1", "flotilla_has_leader": "1", "flotilla_lease_held": "1", "flotilla_draining": "0", "flotilla_failed": "0",
			`flotilla_members{raft="voter"}`: "3", "flotilla_members_present": "3", "flotilla_failure_tolerance": "1",
			"flotilla_config_differences": "0", "flotilla_lease_lost_total": "0", "flotilla_clock_reliable": "1",
		}
		for i := range 3 {
			wantSamples(t, c.Nodes[i], same)
		}
		wantSamples(t, c.Nodes[leader], map[string]string{"flotilla_is_leader": "1"})
		wantSamples(t, c.Nodes[follower], map[string]string{"flotilla_is_leader": "0"})
		name := c.Nodes[follower].Status().Name
		if _, ok := scrape(t, c.Nodes[leader], `flotilla_peer_lag_entries{peer="`+name+`"}`); !ok {
			t.Error("the leader does not say how far a follower is behind")
		}
		for _, family := range []string{"flotilla_peer_rtt_seconds", "flotilla_peer_clock_offset_seconds", "flotilla_peer_reachable"} {
			if _, ok := scrape(t, c.Nodes[leader], family+`{peer="`+name+`"}`); !ok {
				t.Errorf("%s has nothing of %s", family, name)
			}
		}

		ctx, release := context.WithCancel(t.Context())
		held, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- c.Nodes[follower].Hold(ctx, flotilla.Role{Name: "jobs"}, func(ctx context.Context, _ flotilla.Tenure) error {
				close(held)
				<-ctx.Done()
				return nil
			})
		}()
		<-held
		synctest.Wait()
		wantSamples(t, c.Nodes[follower], map[string]string{
			`flotilla_role_held{role="jobs"}`: "1", `flotilla_role_has_holder{role="jobs"}`: "1",
			`flotilla_role_changes_total{role="jobs",cause="it was free"}`: "1",
			`flotilla_events_total{kind="role_moved"}`:                     "1",
		})
		wantSamples(t, c.Nodes[leader], map[string]string{`flotilla_role_held{role="jobs"}`: "0", `flotilla_role_has_holder{role="jobs"}`: "1"})
		if _, ok := scrape(t, c.Nodes[leader], `flotilla_role_changes_total{role="jobs",cause="it was free"}`); ok {
			t.Error("a node counts a role that another one has got")
		}
		release()
		<-done
	})
}

// Every metric has a valid name, a sentence and samples with all labels; a counter ends in _total.
func TestMetricsAreWellFormed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		var names []string
		for f := range c.Nodes[0].Metrics() {
			names = append(names, f.Name)
			if !regexp.MustCompile(`^flotilla_[a-z][a-z0-9_]*$`).MatchString(f.Name) {
				t.Errorf("%s is no name", f.Name)
			}
			if (f.Type == metric.Counter) != strings.HasSuffix(f.Name, "_total") {
				t.Errorf("%s is a %s", f.Name, f.Type)
			}
			if !strings.HasSuffix(f.Help, ".") {
				t.Errorf("%s has no sentence: %q", f.Name, f.Help)
			}
			for _, s := range f.Samples {
				if len(s.Values) != len(f.Labels) || (f.Type == metric.Histogram) != (s.Histogram != nil) {
					t.Errorf("%s has the sample %+v", f.Name, s)
				}
			}
		}
		unique := slices.Compact(slices.Sorted(slices.Values(names)))
		if len(unique) != len(names) || len(names) < 60 {
			t.Errorf("there are %d metrics with %d names", len(names), len(unique))
		}
	})
}

// What package vip reports is in the metrics, and gone when it ends.
func TestMetricsOfAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		n := c.Nodes[0]
		var _ hold.Observer = n
		a := hold.Addresses{Role: "vip/x", Addrs: []netip.Prefix{netip.MustParsePrefix("198.18.0.100/24")}, Usable: true, Bound: true}
		n.ObserveAddresses(a, event.Event{Kind: event.AddressBound, Subject: "198.18.0.100", Text: "it is here"})
		wantSamples(t, n, map[string]string{
			`flotilla_vip_bound{address="198.18.0.100"}`: "1", `flotilla_vip_usable{address="198.18.0.100"}`: "1",
			`flotilla_vip_conflict{address="198.18.0.100"}`: "0", `flotilla_vip_events_total{address="198.18.0.100",kind="bound"}`: "1",
		})
		a.Bound, a.Conflict = false, "02:00:5e:00:53:01"
		n.ObserveAddresses(a, event.Event{})
		wantSamples(t, n, map[string]string{`flotilla_vip_bound{address="198.18.0.100"}`: "0", `flotilla_vip_conflict{address="198.18.0.100"}`: "1"})
		a.Gone = true
		n.ObserveAddresses(a, event.Event{})
		if _, ok := scrape(t, n, `flotilla_vip_bound{address="198.18.0.100"}`); ok {
			t.Error("an address that is not served any more has a sample")
		}
	})
}

// Events tell the same of a cluster's events on every node, and /status has them.
func TestEventsOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		victim := 0
		for i := range 3 {
			if s := c.Nodes[i].Status(); s.Leader != s.ID {
				victim = i
			}
		}
		gone := c.Nodes[victim].Status().Name
		c.Kill(victim)
		time.Sleep(2 * time.Second)
		keys := make(map[string]int)
		for i := range 3 {
			if i == victim {
				continue
			}
			rec := httptest.NewRecorder()
			c.Nodes[i].Health().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/status", nil))
			var shown struct {
				Name   string
				Events []event.Event
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &shown); err != nil || shown.Name != c.Nodes[i].Status().Name {
				t.Fatal(err, shown.Name)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			var all []event.Event
			for e := range c.Nodes[i].Events(ctx) {
				all = append(all, e)
			}
			cancel()
			if diff := cmp.Diff(shown.Events, all, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
				t.Errorf("/status and Events differ (-status +events):\n%s", diff)
			}
			for _, e := range all {
				if e.Kind == event.SessionEnded && e.Subject == gone && e.Severity == event.Warn && strings.HasPrefix(e.Cause, "it was silent for ") {
					keys[e.Key]++
				}
			}
		}
		if len(keys) != 1 {
			t.Errorf("two nodes tell of the end of %s under the keys %v", gone, keys)
		}
		for _, n := range keys {
			if n != 2 {
				t.Errorf("%d of two nodes tell of it", n)
			}
		}
	})
}
