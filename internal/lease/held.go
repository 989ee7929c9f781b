package lease

import (
	"slices"
	"time"
)

// SessionID names a session.
type SessionID struct {
	Node   string // the node ID
	Number uint64 // the index of the entry that opened it
}

// held is what a node knows of the grants that voters have given to its session. It looks at no
// clock: callers say what time it is, by the clock of the node.
type held struct {
	length  time.Duration        // see timing.Held
	session uint64               // 0: there is none
	granted map[string]time.Time // by voter: when the newest request that it granted was sent
}

// begin forgets all grants: they were given to another session.
func (h *held) begin(session uint64) {
	h.session, h.granted = session, make(map[string]time.Time)
}

// observe counts a voter's grant for the request that was sent at the given time.
func (h *held) observe(voter string, session uint64, sent time.Time) {
	if session == h.session && session != 0 && sent.After(h.granted[voter]) {
		h.granted[voter] = sent
	}
}

// end returns when the lease ends: each of a majority of the voters is bound at least until then.
// It is zero as long as there was no majority.
func (h *held) end(voters []string) time.Time {
	sent := make([]time.Time, len(voters))
	for i, v := range voters {
		sent[i] = h.granted[v]
	}
	slices.SortFunc(sent, func(a, b time.Time) int { return b.Compare(a) })
	if len(sent) == 0 || sent[len(sent)/2].IsZero() {
		return time.Time{}
	}
	return sent[len(sent)/2].Add(h.length)
}
