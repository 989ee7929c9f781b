package roles

import (
	"testing"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// A node has returned when it has a session that is not suspected and did not have it before.
func TestPresence(t *testing.T) {
	p := new(presence)
	for _, step := range []struct {
		name     string
		sessions map[string]*state.Session
		want     bool
	}{
		{"the first look", map[string]*state.Session{"a": {Number: 1}}, true},
		{"no change", map[string]*state.Session{"a": {Number: 1}}, false},
		{"another node comes", map[string]*state.Session{"a": {Number: 1}, "b": {Number: 2}}, true},
		{"it is suspected", map[string]*state.Session{"a": {Number: 1}, "b": {Number: 2, Suspect: 3}}, false},
		{"it is heard again", map[string]*state.Session{"a": {Number: 1}, "b": {Number: 2}}, true},
		{"it leaves", map[string]*state.Session{"a": {Number: 1}}, false},
		{"a node begins another session", map[string]*state.Session{"a": {Number: 4}}, true},
	} {
		s := state.New()
		for node, ses := range step.sessions {
			s.Sessions, _, _ = s.Sessions.Insert([]byte(node), ses)
		}
		returned := p.returned.Wait()
		p.onSessions(s)
		got := false
		select {
		case <-returned:
			got = true
		default:
		}
		if got != step.want {
			t.Errorf("%s: returned %v, want %v", step.name, got, step.want)
		}
	}
}
