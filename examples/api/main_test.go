package main

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
)

// api is the program of each node: all of it but the environment.
func api(ctx context.Context, cfg flotilla.Config) error {
	return serve(ctx, cfg, []string{"api.test"}, nil)
}

// servedBy returns the name of the server that answers, and of the one that leads.
func servedBy(t *testing.T, client *http.Client) (server, leader string) {
	t.Helper()
	resp, err := client.Get("https://api.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ ServedBy, Leader string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer.ServedBy, answer.Leader
}

// No request fails while the servers are restarted one after another.
func TestRollingRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.Run(t, 3, api)
		c.Settle()
		stop := c.Load(c.Client(), "https://api.test/")
		for i := range c.Nodes {
			c.Stop(i)
			c.Restart(i)
			c.Settle()
		}
		stop()
	})
}

// The others go on when the machine of the leader has vanished.
func TestLeaderVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.Run(t, 3, api)
		c.Settle()
		client := c.Balancer().Client()
		gone := c.Leader()
		c.Isolate(gone)
		time.Sleep(5 * time.Second) // of virtual time
		server, leader := servedBy(t, client)
		if name := c.Config(gone).Name; server == name || leader == name {
			t.Errorf("%s answers, and %s leads; %s has vanished", server, leader, name)
		}
		c.Heal()
		c.Settle()
	})
}
