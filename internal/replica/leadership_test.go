package replica

import (
	"testing"

	"github.com/hashicorp/raft"
)

// The leadership is offered to each peer once in a term.
func TestLeadershipIsOfferedOnce(t *testing.T) {
	l := &Leadership{offered: make(map[raft.ServerID]bool)}
	if !l.offer("a") || l.offer("a") || !l.offer("b") || !l.Offered("a") || l.Offered("c") {
		t.Errorf("offered: %v", l.offered)
	}
}
