package replica

import (
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// machine applies commands to a state.
type machine struct{ s *state.State }

func (m *machine) do(c state.Command) (a state.Answer) {
	m.s, a = m.s.Apply(m.s.Index+1, &c, nil)
	return a
}

// open opens a session for a node, and returns its number.
func (m *machine) open(node string) uint64 {
	m.do(state.Command{Node: node, Change: state.OpenSession{Incarnation: "process of " + node}})
	return m.s.Session(node).Number
}

// A caller that has seen a state before its session was replaced does not make numbers come twice.
// The state machine would answer the second command of that number from memory, and not carry it
// out.
func TestNumbersComeOnce(t *testing.T) {
	m := &machine{s: state.New()}
	var n numbers
	m.open("other")
	session := m.open("a")
	put := func(key string) {
		seq, acked := n.begin(session)
		a := m.do(state.Command{Node: "a", Session: session, Seq: seq, Acked: acked, Change: state.StoreRecord{Key: key, MaxState: 1 << 20}})
		n.end(session, seq)
		if _, ok := m.s.Records.Get(keyspace.Tree(key)); !ok {
			t.Errorf("%s: answer %+v, and it is not stored", key, a)
		}
	}
	put("one")
	if seq, _ := n.begin(session - 1); seq != 0 {
		t.Errorf("an old session gets number %d", seq)
	}
	put("two")
}

// A command that its caller has given up is answered too: the leader waits for the answers to all
// commands of a batch.
func TestGivenUpCommandIsAnswered(t *testing.T) {
	m := &machine{s: state.New()}
	session := m.open("a")
	var n numbers
	a, ackedA := n.begin(session)
	b, ackedB := n.begin(session)
	n.end(session, a) // its context is over
	c, ackedC := n.begin(session)
	for _, x := range [][2]uint64{{a, ackedA}, {b, ackedB}, {c, ackedC}} {
		m.do(state.Command{Node: "a", Session: session, Seq: x[0], Acked: x[1], Change: state.StoreRecord{Key: "k", MaxState: 1 << 20}})
	}
	// committer.propose waits for these, for the batch of a and b, in the first state that it can see.
	for _, seq := range []uint64{a, b} {
		if _, ok := m.s.Answer("a", session, seq); !ok {
			t.Errorf("the leader waits in vain for the answer to %d", seq)
		}
	}
}

func TestOldestCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n numbers
		if waiting, since := n.oldest(); waiting != 0 || !since.IsZero() {
			t.Errorf("at first %d wait since %v", waiting, since)
		}
		start := time.Now()
		first, _ := n.begin(5)
		time.Sleep(time.Second)
		second, acked := n.begin(5)
		if waiting, since := n.oldest(); waiting != 2 || !since.Equal(start) || acked != first-1 {
			t.Errorf("%d wait since %v, and all are answered up to %d", waiting, since, acked)
		}
		n.end(4, second) // another session's
		n.end(5, first)
		if waiting, since := n.oldest(); waiting != 1 || !since.Equal(start.Add(time.Second)) {
			t.Errorf("%d wait since %v", waiting, since)
		}
		if seq, acked := n.begin(6); seq != 1 || acked != 0 {
			t.Errorf("the next session begins with %d after %d", seq, acked)
		}
	})
}
