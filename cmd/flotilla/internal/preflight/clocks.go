package preflight

import (
	"context"
	"time"

	"github.com/flotilla-ha/flotilla/internal/clocks"
)

// clock is what another one shows.
type clock struct {
	whose string
	ahead time.Duration // of the clock of this machine; negative: behind it
	exact time.Duration // how far that may be wrong
}

// compareClocks compares the clock of this machine with those of the peers, or else with that of
// the authority.
func (c *checker) compareClocks(context.Context) {
	const item, remedy = "clock", "set it, and keep it right by NTP: by a wrong clock certificates are not ordered"
	if len(c.clocks) == 0 {
		if !c.dev {
			c.warn(item, "see that NTP keeps it right", "neither a peer nor the authority has said what the time is")
		}
		return
	}
	worst := c.clocks[0]
	for _, k := range c.clocks[1:] {
		if k.off() > worst.off() {
			worst = k
		}
	}
	way := "behind"
	if worst.ahead < 0 {
		way = "ahead of"
	}
	off := worst.off()
	switch {
	case off > clocks.MaxOffset:
		c.fail(item, remedy, "it is %v %s that of %s", off.Round(time.Minute), way, worst.whose)
	case off > clocks.Tolerance:
		c.warn(item, remedy, "it is %v %s that of %s", off.Round(time.Second), way, worst.whose)
	default:
		c.ok(item, "it differs by about %v from that of %s", max(off, time.Millisecond).Round(time.Millisecond), worst.whose)
	}
}

// off returns by how much the clocks differ at least.
func (k clock) off() time.Duration { return max(max(k.ahead, -k.ahead)-k.exact, 0) }
