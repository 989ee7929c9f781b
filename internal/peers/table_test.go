package peers

import (
	"errors"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// record has the state know the member a, and a session of its process.
func record(t *testing.T, store *applied.Store, addr, incarnation string) {
	t.Helper()
	s := store.State()
	if s == nil {
		s = state.New()
	}
	for _, change := range []state.Change{
		state.SetMember{Member: state.Member{ID: "a", Name: "recorded", Addr: addr}},
		state.OpenSession{Incarnation: incarnation, Addr: addr, Processes: []string{incarnation}, Replaces: s.Number("a")},
	} {
		s, _ = s.Apply(s.Index+1, &state.Command{Node: "a", Change: change}, nil)
		s.Servers = []string{"a"}
	}
	if p, ok := s.Process("a"); !ok || p.Incarnation != incarnation {
		t.Fatalf("the state has the process %+v", p)
	}
	store.Publish(s)
}

// A node's own word counts most, then the state, then what others say.
func TestWhatCounts(t *testing.T) {
	store := applied.New()
	table := NewTable(store)
	is := func(when, name, addr string) {
		t.Helper()
		if got, _ := table.Addr("a"); got != addr || table.Name("a") != name || table.All()["a"].Addr != addr {
			t.Errorf("%s it is %s at %s, want %s at %s", when, table.Name("a"), got, name, addr)
		}
	}
	table.Learn(state.Member{ID: "a", Name: "learned", Addr: "l:1"})
	is("when others have spoken", "learned", "l:1")
	table.Observe(state.Member{ID: "a", Name: "said", Addr: "s:1"}, Process{Incarnation: self.NewIncarnation(1), Applied: 3})
	is("when it has spoken", "said", "s:1")
	table.Learn(state.Member{ID: "a", Name: "learned", Addr: "l:2"})
	is("when others speak later", "said", "s:1")
	record(t, store, "s:1", self.NewIncarnation(1))
	is("when it is recorded", "recorded", "s:1")
	if got := table.NameOf("0123456789abcdef"); got != "01234567" {
		t.Errorf("a node without a name is called %q", got)
	}
}

// A greeting of an earlier process that arrives late changes nothing.
func TestLateGreeting(t *testing.T) {
	table := NewTable(applied.New())
	first, second := self.NewIncarnation(1), self.NewIncarnation(2)
	m := state.Member{ID: "a", Addr: "a:1"}
	table.Observe(m, Process{Incarnation: second, Applied: 9})
	changed := table.Changed()
	table.Observe(state.Member{ID: "a", Addr: "a:2"}, Process{Incarnation: first, Applied: 3})
	if p, _, _ := table.Latest("a"); p.Incarnation != second || p.Addr != "a:1" {
		t.Errorf("the newest process is %+v", p)
	}
	select {
	case <-changed:
		t.Error("a late greeting is a change")
	default:
	}
	if index, node := table.Furthest(time.Now().Add(-time.Hour), func(string) bool { return true }); index != 9 || node != "a" {
		t.Errorf("%q has applied entry %d, want a and 9", node, index)
	}
}

// The newest process of a node is the one that greeted, until the state has a session of a later
// one.
func TestLatest(t *testing.T) {
	store := applied.New()
	table := NewTable(store)
	first, second := self.NewIncarnation(1), self.NewIncarnation(2)
	is := func(incarnation string, recorded bool) {
		t.Helper()
		if p, r, ok := table.Latest("a"); !ok || p.Incarnation != incarnation || r != recorded {
			t.Errorf("the newest process is %+v, recorded %v, known %v; want %s, recorded %v", p, r, ok, incarnation, recorded)
		}
	}
	if _, _, ok := table.Latest("a"); ok {
		t.Error("a process of an unknown node is known")
	}
	record(t, store, "a:1", first)
	is(first, true)
	table.Observe(state.Member{ID: "a", Addr: "a:1"}, Process{Incarnation: second, Applied: 0})
	is(second, false)
	third := self.NewIncarnation(3)
	record(t, store, "a:1", third)
	is(third, true)
}

// A node that is leaving stays so until another process of it speaks.
func TestLeaving(t *testing.T) {
	table := NewTable(applied.New())
	m := state.Member{ID: "a", Addr: "a:1"}
	first := self.NewIncarnation(1)
	table.Observe(m, Process{Incarnation: first, Applied: 0})
	if !table.SetLeaving("a", true) || table.SetLeaving("a", true) || !table.IsLeaving("a") {
		t.Error("that it leaves is news once")
	}
	table.Observe(m, Process{Incarnation: first, Applied: 1})
	if !table.IsLeaving("a") {
		t.Error("the same process is taken to stay")
	}
	table.Observe(m, Process{Incarnation: self.NewIncarnation(2), Applied: 1})
	if table.IsLeaving("a") {
		t.Error("another process is taken to leave")
	}
}

func TestProcesses(t *testing.T) {
	table := NewTable(applied.New())
	why := errors.New("it is a copy")
	if !table.Bar("p", why) || table.Bar("p", why) || table.IsBarred("p") != why || table.IsBarred("q") != nil {
		t.Error("a process is barred once, and no other one")
	}
	if table.End("p"); !table.HasEnded("p") || table.HasEnded("q") {
		t.Error("a process has ended, and no other one")
	}
	table.SessionOver("a", 7)
	if table.SessionOver("a", 5); table.OverSession("a") != 7 || table.OverSession("b") != 0 {
		t.Errorf("session %d is over", table.OverSession("a"))
	}
	if !table.IsNews("a", "x") || table.IsNews("a", "x") || !table.IsNews("a", "y") {
		t.Error("the same progress is news once")
	}
}

// What a process supports says nothing of the next one: that may be another program.
func TestSupports(t *testing.T) {
	table := NewTable(applied.New())
	m, first, second := state.Member{ID: "a", Addr: "a:1"}, self.NewIncarnation(1), self.NewIncarnation(2)
	if got := table.Supports("a", first); got != 0 {
		t.Errorf("a process that has not spoken supports version %d", got)
	}
	table.Observe(m, Process{Incarnation: first, Supports: 2})
	if a, b := table.Supports("a", first), table.Supports("a", second); a != 2 || b != 0 {
		t.Errorf("the process supports version %d, and the next one %d", a, b)
	}
	changed := table.Changed()
	table.Observe(m, Process{Incarnation: second, Supports: 1})
	if a, b := table.Supports("a", first), table.Supports("a", second); a != 0 || b != 1 {
		t.Errorf("the former process supports version %d, and the present one %d", a, b)
	}
	select {
	case <-changed:
	default:
		t.Error("that another process has spoken is no change")
	}
}
