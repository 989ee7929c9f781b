package membership

import (
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Protocol is the version of the greeting that this program speaks. A later version may add fields,
// which this one skips. A field that is absent means zero.
const Protocol = 1

// Greeting is what a node says of itself. Nodes tell each other in both directions: it is the body
// of the call Hello and of its answer, and the body of the call Join.
type Greeting struct {
	Protocol           int    // the version of this message that the node speaks
	Supports           uint64 // the newest cluster version that its program supports
	ClusterIncarnation uint64 // of the node's cluster; 0: it was never restored

	state.Member          // the node, and where it is
	Incarnation  string   // of the process
	Processes    []string // that have had the node's directory, see Identity
	Last         uint64   // index of the newest entry in the log
	Applied      uint64   // index of the newest entry that was applied

	Standing
	Leader    string         // node ID, empty if not known
	Servers   []string       // node IDs of raft's configuration as this node has it
	Committed []string       // node IDs of the newest configuration that this node has applied
	Voters    int            // how many of the servers vote
	Lost      uint64         `json:",omitempty"` // a session that this process has given up
	Members   []state.Member // what the node knows of others
	Settings  Settings       // what all nodes should have alike

	// Refused is about the caller, in an answer: why it cannot go on. Nil: it can.
	Refused *Refusal `json:",omitempty"`
}

// Encode returns a greeting as JSON.
func (g Greeting) Encode() []byte { return encodeJSON(g) }

// DecodeGreeting is the inverse of Encode. It skips fields that it does not know.
func DecodeGreeting(b []byte) (Greeting, error) { return decodeJSON[Greeting](b) }

// progress says how far a node is on its way into a cluster. It is only compared.
func (g *Greeting) progress() string {
	said := fmt.Sprint(g.Protocol, g.Incarnation, g.Addr, g.Cluster, g.InRaft, g.Leader != "", len(g.Committed), len(g.Void))
	if g.Formation != nil {
		said += g.Formation.Cluster + string(g.Formation.Step)
	}
	return said
}

// process returns what the process that greets says of itself. The first programs did not say what
// they support: that is version 1.
func (g *Greeting) process() peers.Process {
	return peers.Process{Incarnation: g.Incarnation, Supports: max(1, g.Supports), Applied: g.Applied}
}

// tooNew says that a node speaks a later protocol than this one, empty if it does not.
func (g *Greeting) tooNew() string {
	if g.Protocol <= Protocol {
		return ""
	}
	return fmt.Sprintf("it speaks version %d of the greeting, and this node knows up to %d; upgrade this node", g.Protocol, Protocol)
}

// asNew says what to do with a node that is to be a new one.
func asNew(m state.Member) string {
	if m.InMemory {
		return "start it again"
	}
	return "empty its directory"
}

// Joining is the leader's answer to the call Join.
type Joining struct {
	Cluster     string         // the identity of the cluster
	Incarnation uint64         // of the cluster; 0: it was never restored
	Members     []state.Member // what the leader knows of others
}

// Encode returns an answer as JSON.
func (j Joining) Encode() []byte { return encodeJSON(j) }

// DecodeJoining is the inverse of Encode. It skips fields that it does not know.
func DecodeJoining(b []byte) (Joining, error) { return decodeJSON[Joining](b) }

// Leaving is the body of the call Leave.
type Leaving struct {
	ID   string // of the node that leaves
	Name string // for people
}

// Encode returns a message as JSON.
func (l Leaving) Encode() []byte { return encodeJSON(l) }

// DecodeLeaving is the inverse of Encode. It skips fields that it does not know.
func DecodeLeaving(b []byte) (Leaving, error) { return decodeJSON[Leaving](b) }
