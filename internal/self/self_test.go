package self

import (
	"encoding/hex"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// A process has the session that it has opened, and not that of another process of its node.
func TestSession(t *testing.T) {
	opened, _ := state.New().Apply(7, &state.Command{Node: "a", Change: state.OpenSession{Incarnation: "p"}}, nil)
	for _, test := range []struct {
		name string
		self Self
		in   *state.State
		want uint64
	}{
		{"own", Self{ID: "a", Incarnation: "p"}, opened, 7},
		{"of another process", Self{ID: "a", Incarnation: "q"}, opened, 0},
		{"of another node", Self{ID: "b", Incarnation: "p"}, opened, 0},
		{"none", Self{ID: "a", Incarnation: "p"}, state.New(), 0},
	} {
		if got := test.self.Session(test.in); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

func TestNames(t *testing.T) {
	if id := NewID(); id == NewID() || len(id) != 32 {
		t.Errorf("node ID %q", id)
	} else if _, err := hex.DecodeString(id); err != nil {
		t.Error(err)
	}
	if a, b := NewIncarnation(0xf), NewIncarnation(0x10); a >= b {
		t.Errorf("%s is not before %s", a, b)
	}
	if a, b := NewIncarnation(1), NewIncarnation(1); a == b {
		t.Error("two processes have one name")
	}
}
