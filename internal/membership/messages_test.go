package membership

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// fuzz checks that a message is the same after it was encoded and decoded: the example, and all
// that decode accepts.
func fuzz[M interface{ Encode() []byte }](f *testing.F, decode func([]byte) (M, error), example M) {
	f.Helper()
	same := func(t testing.TB, want M) {
		got, err := decode(want.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	}
	same(f, example)
	f.Add(example.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err == nil {
			same(t, m)
		} else if !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("a body is refused with %v", err)
		}
	})
}

var (
	exampleProposal = Proposal{Cluster: "new", Proposer: "a", Group: []string{"a", "b"}, Number: 2}
	exampleMember   = state.Member{
		ID: "a", Name: "n1", Addr: "a:7373", InMemory: true, Former: "b", Secrets: "11 22", Clean: 4, Zone: "z", Witness: true,
	}
)

func FuzzGreeting(f *testing.F) {
	fuzz(f, DecodeGreeting, Greeting{
		Protocol: Protocol, Supports: 1, ClusterIncarnation: 2, Member: exampleMember,
		Incarnation: "p2", Processes: []string{"p1", "p2"}, Last: 9, Applied: 8,
		Standing: Standing{Cluster: "c", InRaft: true, Formation: &Stand{exampleProposal, promised}, Void: []string{"v"}},
		Leader:   "b", Servers: []string{"a", "b"}, Committed: []string{"a"}, Voters: 1, Lost: 7,
		Members:  []state.Member{exampleMember},
		Settings: Settings{Version: 1, Values: map[string]string{"Timing": "lan"}},
		Refused:  &Refusal{refusedCopy, "because"},
	})
}

func FuzzStale(f *testing.F)      { fuzz(f, DecodeStale, Stale{Cluster: "c", ID: "a", Key: "11 22"}) }
func FuzzConfirmed(f *testing.F)  { fuzz(f, DecodeConfirmed, Confirmed{true}) }
func FuzzProposal(f *testing.F)   { fuzz(f, DecodeProposal, exampleProposal) }
func FuzzVoiding(f *testing.F)    { fuzz(f, DecodeVoiding, Voiding{Voided: true}) }
func FuzzLeaving(f *testing.F)    { fuzz(f, DecodeLeaving, Leaving{ID: "a", Name: "n1"}) }
func FuzzProcess(f *testing.F)    { fuzz(f, DecodeProcessName, ProcessName{Incarnation: "p1"}) }
func FuzzEndSession(f *testing.F) { fuzz(f, DecodeEndSession, EndSession{Number: 3, HoldDown: true}) }
func FuzzDeathNotice(f *testing.F) {
	fuzz(f, DecodeDeathNotice, DeathNotice{Node: "a", Number: 3})
}

func FuzzJoining(f *testing.F) {
	fuzz(f, DecodeJoining, Joining{Cluster: "c", Incarnation: 1 << 32, Members: []state.Member{exampleMember}})
}

func FuzzOpenSession(f *testing.F) {
	fuzz(f, DecodeOpenSession, OpenSession{
		Incarnation: "p2", Addr: "a:7373", Replaces: 3, Clean: true, Processes: []string{"p1", "p2"},
	})
}

// A greeting of another version is understood as far as it goes.
func TestGreetingsOfOtherVersions(t *testing.T) {
	for _, test := range []struct {
		name, body string
		want       Greeting
		tooNew     bool
	}{
		{"one that says little", `{"ID":"a"}`, Greeting{Member: state.Member{ID: "a"}}, false},
		{"one with a zone", `{"ID":"a","Zone":"z"}`, Greeting{Member: state.Member{ID: "a", Zone: "z"}}, false},
		{"one of a witness", `{"ID":"a","Witness":true}`, Greeting{Member: state.Member{ID: "a", Witness: true}}, false},
		{"one that says what it supports", `{"ID":"a","Supports":2}`, Greeting{Supports: 2, Member: state.Member{ID: "a"}}, false},
		{"a later one", `{"Protocol":2,"ID":"a","Later":{"x":1},"Incarnation":"p1"}`,
			Greeting{Protocol: 2, Member: state.Member{ID: "a"}, Incarnation: "p1"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := DecodeGreeting([]byte(test.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if why := got.tooNew(); (why != "") != test.tooNew {
				t.Errorf("it is too new: %q", why)
			}
		})
	}
}
