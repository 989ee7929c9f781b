package peerconn

// The reasons for which what peers send is rejected, as it is counted. Their texts are in metrics.
const (
	BadSecret    = "secret"    // who dials has none of our secrets, or one that was dropped meanwhile
	BadHandshake = "handshake" // there was none, or it failed for another reason
	BadProtocol  = "protocol"  // what it wants or says is not known here, or cannot be right
	BadMember    = "member"    // it is no member, or this node takes no part
	BadProcess   = "process"   // another process has its node's place
	BadEvicted   = "evicted"   // the cluster has evicted it
	BadTerm      = "term"      // no series of elections leads to its term
	BadLog       = "log"       // its log contradicts ours
	BadElection  = "election"  // it must not lead, or another node leads already
	NotRunning   = "unready"   // raft does not run here
	TooMany      = "limit"     // there are too many connections, or a call is too large
)

// Refusal is why a connection is refused.
type Refusal struct {
	error
	Reason string // one of the reasons above
}

// Refuse returns a Refusal for an error. It returns nil for nil.
func Refuse(reason string, err error) error {
	if err == nil {
		return nil
	}
	return &Refusal{err, reason}
}

// Unwrap returns the error.
func (r *Refusal) Unwrap() error { return r.error }
