package datagram

import (
	"net"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// A connection closes the one before it. One that has ended is forgotten, whichever ends first.
func TestReceiversForget(t *testing.T) {
	for _, newestFirst := range []bool{false, true} {
		s := newReceivers(Config{})
		set := peerconn.NewSet()
		t.Cleanup(set.Close)
		closed := 0
		var all []*receiver
		for range 2 {
			raw, _ := net.Pipe()
			c := set.Track(raw)
			c.AtClose(func() { closed++ })
			all = append(all, s.enter(c))
		}
		if closed != 1 || all[0].before != nil || all[1].before == nil {
			t.Fatalf("%d connections were closed, want the older one", closed)
		}
		if newestFirst {
			all[0], all[1] = all[1], all[0]
		}
		s.leave(all[0])
		s.leave(all[1])
		if len(s.in) != 0 {
			t.Errorf("%d connections are remembered", len(s.in))
		}
	}
}
