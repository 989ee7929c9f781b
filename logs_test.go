package flotilla_test

import (
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// told is what the nodes of a cluster have logged at INFO and above.
type told struct {
	mu    sync.Mutex
	lines []string
}

func (l *told) logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(lineWriter(func(line string) {
		t.Log(line)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, line)
	}), nil))
}

// take returns the lines since the last call. The test fails unless the patterns match as many of
// them as they should, and if a line says twice or never which node has written it.
func (l *told) take(t *testing.T, what string, want map[string]int) []string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for pattern, n := range want {
		matches := slices.Clone(l.lines)
		matches = slices.DeleteFunc(matches, func(line string) bool { return !regexp.MustCompile(pattern).MatchString(line) })
		if len(matches) != n {
			t.Errorf("%s: %d lines match %s, want %d", what, len(matches), pattern, n)
		}
	}
	for _, line := range l.lines {
		if strings.Count(line, " node=") != 1 {
			t.Errorf("%s: not one name of the node that writes it: %s", what, line)
		}
	}
	lines := l.lines
	l.lines = nil
	return lines
}

// One line tells of one thing that happens to a cluster: raft and certmagic do not repeat it. It
// has the names of the nodes. A test with renewals must not run beside others: see testca.
func TestOneLineForEachEvent(t *testing.T) {
	flotilla.SkipShort(t)
	const email = "logs@flotilla.test"
	ca := testca.New(t, testca.Config{Trusting: true, Lifetime: 2 * time.Hour})
	if err := ca.PrepareRenewals(t.Context(), email); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log told
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) {
			cfg.Logger, cfg.TLS.Email, cfg.TLS.Configure = log.logger(t), email, ca.Configure
		})
		c.Settle()
		time.Sleep(11 * time.Second)
		log.take(t, "formation", map[string]int{
			`msg="the node has started"`:                3,
			`msg="taking part in a new cluster"`:        3,
			`msg="this node leads"`:                     1,
			`msg="this node takes part in the cluster"`: 3,
			`level=(WARN|ERROR)`:                        0,
		})

		c.Serve(func(int, *flotilla.Node) http.Handler { return http.NotFoundHandler() }, "logs.test")
		time.Sleep(5 * time.Second)
		log.take(t, "order", map[string]int{
			`msg=serving`:                       3,
			`msg="new ACME account registered"`: 1,
			`msg="a certificate was obtained" .*event=certificate_obtained domain=logs.test`: 1,
			`msg="certificate is being served"`:                                              2,
			`level=`:                                                                         7,
		})

		time.Sleep(90 * time.Minute)
		renewed := log.take(t, "renewal", map[string]int{`level=(WARN|ERROR)`: 0})
		count := func(part string) (n int) {
			for _, line := range renewed {
				if strings.Contains(line, part) {
					n++
				}
			}
			return n
		}
		if n := count("event=certificate_renewed"); n == 0 || count("event=certificate_served") != 2*n || len(renewed) != 3*n {
			t.Errorf("%d renewals have these lines, not one of each node:\n%s", n, strings.Join(renewed, "\n"))
		}

		dead := c.Leader()
		name := c.Config(dead).Name
		c.Kill(dead)
		time.Sleep(4 * time.Second)
		log.take(t, "death of the leader", map[string]int{
			`level=WARN msg="a node is gone; .* peer="` + name + ` \(`: 1,
			`msg="this node leads"`: 1,
			`level=WARN`:            1,
		})
		c.Restart(dead)
		c.Settle()
		time.Sleep(10 * time.Second)
		log.take(t, "its restart", map[string]int{
			`msg="the node has started" node=` + name:                1,
			`msg="this node takes part in the cluster" node=` + name: 1,
			`level=(WARN|ERROR)`:                                     0,
		})

		for i := range c.Nodes {
			c.Stop(i)
			c.Restart(i)
			c.Settle()
			time.Sleep(10 * time.Second)
		}
		log.take(t, "rolling restart", map[string]int{
			`msg=draining .*event=drain_begun`:          3,
			`msg=drained .*event=drain_ended`:           3,
			`msg="the node has ended"`:                  3,
			`msg="the node has started"`:                3,
			`msg="this node takes part in the cluster"`: 3,
			`level=(WARN|ERROR)`:                        0,
		})
	})
}
