package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// settled is a cluster of n nodes that all vote.
func settled(t *testing.T, n int) *clustertest.Cluster {
	t.Helper()
	c := clustertest.New(t, n, nil)
	c.Settle()
	time.Sleep(30 * time.Second)
	c.Settle()
	return c
}

// play has a node hold a role whenever it may, until the test ends.
func play(t *testing.T, c *clustertest.Cluster, node int, r flotilla.Role) {
	t.Helper()
	n, ctx := c.Nodes[node], t.Context()
	go func() {
		for ctx.Err() == nil {
			n.Hold(ctx, r, func(ctx context.Context, _ flotilla.Tenure) error {
				<-ctx.Done()
				return ctx.Err()
			})
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
}

func TestStatusOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 3)
		for i := range 3 {
			play(t, c, i, flotilla.Role{Name: "mailer", Priority: 10 - i})
		}
		time.Sleep(5 * time.Second)
		o := operatorOf(c)
		got := o.run(t, "status")
		got.want(t, exitOK, "voters there: 3 of 3", "NODE  STATE  RAFT", "n0    ready", "mailer  n0")
		for line := range strings.Lines(got.out) {
			if len(line) > columns+1 {
				t.Errorf("a line is too long: %s", line)
			}
		}
		var parsed struct {
			Nodes []struct {
				Name, State string
				Status      *flotilla.Status
			}
		}
		js := o.run(t, "status", "-json")
		if err := json.Unmarshal([]byte(js.out), &parsed); err != nil || len(parsed.Nodes) != 3 || parsed.Nodes[2].Name != "n2" || parsed.Nodes[2].State != "ready" || !parsed.Nodes[2].Status.Ready {
			t.Errorf("JSON: %v\n%s", err, js.out)
		}
		o.run(t, "members").want(t, exitOK, "NODE  STATE  RAFT   ID ", c.Nodes[1].Status().ID)
		o.run(t, "members", "-json").want(t, exitOK, c.Nodes[1].Status().ID, `"Status": null`)
		o.run(t, "roles").want(t, exitOK, "ROLE    HOLDER  HELD FOR  WAITING  FENCE", "mailer  n0")
		o.run(t, "roles", "-json").want(t, exitOK, `"Name": "mailer"`)
		o.run(t, "health").want(t, exitOK, "n0: ok\nn1: ok\nn2: ok\n")
		o.run(t, "health", "n1").want(t, exitOK, "n1: ok\n")
		o.run(t, "health", "n7").want(t, exitRefused, "there is no node n7; there are n0, n1, n2")
		if got := o.run(t, "health", "-quiet"); got.out != "" || got.code != exitOK {
			t.Errorf("quiet health: %+v", got)
		}

		c.Kill(2)
		time.Sleep(5 * time.Second)
		o.run(t, "status").want(t, exitOK, "voters there: 2 of 3", "n2    absent", "remark: n2: it does not answer: nobody listens at its address")
		o.run(t, "health").want(t, exitRefused, "n0: ok", "n2: it does not answer: nobody listens at its address")
		o.run(t, "health", "n0").want(t, exitOK, "n0: ok")
		if got := o.run(t, "health", "-quiet", "n2"); got.out+got.errOut != "" || got.code != exitRefused {
			t.Errorf("quiet health: %+v", got)
		}

		c.Kill(1)
		time.Sleep(5 * time.Second)
		o.run(t, "status").want(t, exitOK, "leader none", "of its 3 voters 2 must be there, and 1", "n0    not ready")
		o.run(t, "health").want(t, exitRefused, "cluster: the cluster has no leader: of its 3 voters 2 must be there, and 1 answered; start those that are missing\n", "n0: it is not ready")
		for _, args := range [][]string{{"members", "transfer"}, {"members", "transfer", "n0"}, {"roles", "yield", "mailer"}, {"roles", "move", "mailer", "n1"}} {
			o.run(t, args...).want(t, exitUnreachable, "the cluster has no leader: of its 3 voters 2 must be there, and 1 answered; start those that are missing")
		}
		o.run(t, "members", "remove", "n2").want(t, exitUnreachable, "n0:7373: the cluster has no leader; a majority of its voters must run")
	})
}

// Nobody there, and another secret, are told in a sentence, by every command that asks.
func TestNobodyAnswers(t *testing.T) {
	commands := [][]string{
		{"status"}, {"health"}, {"health", "n0"}, {"members"}, {"members", "remove", "n0"}, {"members", "transfer"}, {"roles"},
		{"roles", "move", "r", "n0"}, {"roles", "yield", "r"}, {"drain", "n0"}, {"undrain", "n0"},
	}
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 2)
		o, wrong := operatorOf(c), operatorOf(c)
		for _, o := range []*operator{o, wrong} {
			o.dial, o.env["FLOTILLA_PEERS"] = c.Config(1).PeerDial, "n0:7373"
		}
		wrong.env["FLOTILLA_SECRETS"] = flotilla.NewSecret().Encode()
		for _, args := range commands {
			got := wrong.run(t, args...)
			got.want(t, exitUnreachable, "n0:7373: the node has another cluster secret (its key ID ", "; give the secret of its cluster")
		}
		c.Kill(0)
		for _, args := range commands {
			got := o.run(t, args...)
			got.want(t, exitUnreachable, "n0:7373: nobody listens there; is the node running")
			if got.out != "" {
				t.Errorf("%v printed %q", args, got.out)
			}
		}
	})
}

// Who answers nothing is waited for no longer than the operator wants.
func TestHealthInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 2)
		o := operatorOf(c)
		o.env["FLOTILLA_PEERS"] = "n1:7373"
		c.Isolate(1)
		start := time.Now()
		got := o.run(t, "health", "-timeout", "1s")
		got.want(t, exitUnreachable, "does every firewall let") // in the words of whose time was over first
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		c.Heal()
	})
}

func TestStatusWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 3)
		watch := func(seconds int, during func(), o *operator, args ...string) string {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(seconds)*time.Second)
			defer cancel()
			done := make(chan said)
			go func() { done <- o.runFor(ctx, append([]string{"status", "-watch"}, args...)...) }()
			during()
			got := <-done
			if got.code != exitOK || got.errOut != "" {
				t.Errorf("exit code %d, errors %q", got.code, got.errOut)
			}
			return got.out
		}
		o := operatorOf(c)
		out := watch(60, func() {
			time.Sleep(10 * time.Second)
			o.run(t, "drain", "n1").want(t, exitOK)
			time.Sleep(10 * time.Second)
			c.Kill(2)
			time.Sleep(10 * time.Second)
			c.Kill(0)
			c.Kill(1)
			time.Sleep(10 * time.Second)
			for i := range 3 {
				c.Restart(i)
			}
		}, o)
		for _, want := range []string{
			"voters there: 3 of 3", ": ready, votes -> drained, votes\n", "silent, votes -> absent, votes\n",
			"  cluster: a node answers -> no node answers\n", "  cluster: no node answers -> a node answers\n",
		} {
			if strings.Count(out, want) != 1 {
				t.Errorf("it should say %q once, and said:\n%s", want, out)
			}
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("it paints without a screen:\n%q", out)
		}

		c.Settle()
		screen := operatorOf(c)
		screen.screen = true
		out = watch(10, func() {}, screen, "-interval", "1s")
		if n := strings.Count(out, "\x1b[H"); n < 9 || n > 11 || strings.Count(out, "\x1b[2J") != 1 || !strings.Contains(out, "\x1b[32mready\x1b[0m") {
			t.Errorf("on a screen it was drawn %d times:\n%q", n, out)
		}
		screen.env["NO_COLOR"] = "1"
		if out = watch(3, func() {}, screen); strings.Contains(out, "\x1b[32m") || !strings.Contains(out, "\x1b[H") {
			t.Errorf("with NO_COLOR: %q", out)
		}

		out = watch(20, func() {
			time.Sleep(5 * time.Second)
			o.run(t, "drain", "n1").want(t, exitOK)
		}, o, "-json")
		lines := slices.Collect(strings.Lines(out))
		if len(lines) != 2 || !json.Valid([]byte(lines[1])) || !strings.Contains(lines[1], `"State":"drained"`) {
			t.Errorf("as JSON it says in %d lines:\n%s", len(lines), out)
		}
	})
}
