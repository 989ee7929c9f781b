package replica

const (
	// MaxBatch is the largest number of commands in one call to the leader.
	MaxBatch = 64

	batchBytes  = 1 << 20 // of commands in one call; a larger command goes alone
	maxInFlight = 4       // calls to the leader at once
)

// attempt is one attempt to have a proposal committed.
type attempt struct {
	Proposal
	done chan error // its outcome; buffered
}

// batch is what goes to the leader in one call.
type batch struct {
	attempts []*attempt
	size     int // of their entries
}

// add adds an attempt, or returns false if there is no room for it.
func (b *batch) add(a *attempt) bool {
	if b.size > 0 && b.size+len(a.Entry) > batchBytes {
		return false
	}
	b.attempts = append(b.attempts, a)
	b.size += len(a.Entry)
	return true
}

// request returns the call's body.
func (b *batch) request() ApplyRequest {
	var m ApplyRequest
	for _, a := range b.attempts {
		m.Proposals = append(m.Proposals, a.Proposal)
	}
	return m
}
