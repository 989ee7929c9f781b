package state

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/script"
)

// A change that the cluster's members may not know is not admitted. The one that raises the version
// is, one version early.
func TestAdmits(t *testing.T) {
	for _, test := range []struct {
		name    string
		version uint64 // of the cluster
		change  Change
		needs   uint64 // 0: it is admitted
	}{
		{"an old one", 1, StoreRecord{Key: "k"}, 0},
		{"the next version", 1, RaiseVersion{To: 2}, 0},
		{"the version after the next", 1, RaiseVersion{To: 3}, 2},
		{"the version after the next, when that is the next", 2, RaiseVersion{To: 3}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := New()
			s.Version = test.version
			err := s.Admits(test.change)
			if test.needs == 0 {
				if err != nil {
					t.Errorf("it is not admitted: %v", err)
				}
				return
			}
			early := new(VersionError)
			if !errors.As(err, &early) || *early != (VersionError{test.needs, test.version}) {
				t.Fatalf("the error is %v", err)
			}
			if want := "this needs cluster version 2, and the cluster has version 1"; !strings.Contains(err.Error(), want) {
				t.Errorf("the error is %q, want %q in it", err, want)
			}
		})
	}
}

// The bytes of a command name the cluster version that it requires. No caller has to set it.
func TestRequires(t *testing.T) {
	for _, test := range []struct {
		name   string
		change Change
		want   uint64
	}{
		{"any version can read it", StartTerm{}, 0},
		{"it came with a later version", RaiseVersion{To: 2}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := DecodeCommand((&Command{Change: test.change}).Encode())
			if err != nil || c.Requires != test.want {
				t.Errorf("it requires version %d, want %d: %v", c.Requires, test.want, err)
			}
		})
	}
}

// raise VERSION: names the present sessions of the members, but for those in other=NODE@NUMBER,….
func (m *machine) raise(c *script.Command) string {
	to, err := strconv.ParseUint(c.Arg(), 10, 64)
	if err != nil {
		c.Fatalf("%v", err)
	}
	change := RaiseVersion{To: to}
	other := make(map[string]uint64)
	for _, text := range split(c.Option("other", "")) {
		node, number := place(c, text)
		other[node] = number
	}
	for _, id := range m.s.Servers {
		number, is := other[id]
		if !is {
			number = m.s.Number(id)
		}
		change.Sessions = append(change.Sessions, SessionOf{id, number})
	}
	return m.run(Command{Requires: to, Change: change})
}

// version shows the cluster version, and whether the members are those that formed the cluster.
func (m *machine) version(*script.Command) string {
	return fmt.Sprintf("%d, as formed: %v", m.s.Version, m.s.IsAsFormed())
}
