package main

import (
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// Nodes that are configured differently are not well, although all of them are ready, and each side says what differs.
func TestHealthOfDifferentSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(i int, cfg *flotilla.Config) {
			if i == 2 {
				cfg.MaxState = 1 << 20
			}
		})
		c.Settle()
		time.Sleep(10 * time.Second)
		o := operatorOf(c)
		o.run(t, "health").want(t, exitRefused,
			"n0: it is configured differently from others: MaxState: 67108864 here, 1048576 there (n2)",
			"n2: it is configured differently from others: MaxState: 1048576 here, 67108864 there (n0); MaxState: 1048576 here, 67108864 there (n1)")
		o.run(t, "health", "n1").want(t, exitRefused, "MaxState: 67108864 here, 1048576 there (n2)")
		c.Config(2).MaxState = 0
		c.Stop(2)
		c.Restart(2)
		c.Settle()
		time.Sleep(5 * time.Second)
		o.run(t, "health").want(t, exitOK, "n0: ok\nn1: ok\nn2: ok\n")
	})
}
